"""FastAPI, the engine and a lock: one picture at a time. ``uvicorn bench.peers.fastapi_lock:app``."""

import asyncio

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from bench.peers.engine import load, png


class Call(BaseModel):
    prompt: str
    seed: int


app = FastAPI()
draw = load()
lock = asyncio.Lock()


@app.post("/generate")
async def generate(call: Call) -> dict[str, str | int]:
    async with lock:
        [image] = await run_in_threadpool(draw, [call.prompt], [call.seed])
    return {"seed": call.seed, "b64": png(image)}
