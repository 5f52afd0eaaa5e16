"""FastAPI and request batching by an asyncio queue. ``uvicorn bench.peers.fastapi_batch:app``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from pydantic import BaseModel

from bench.peers.engine import load, png
from bench.peers.settings import BATCH_SIZE, WAIT_S


class Call(BaseModel):
    prompt: str
    seed: int


draw = load()
queue: asyncio.Queue[tuple[Call, asyncio.Future[Image.Image]]] = asyncio.Queue()


async def batches() -> None:
    loop = asyncio.get_running_loop()
    while True:
        batch = [await queue.get()]
        until = loop.time() + WAIT_S
        while len(batch) < BATCH_SIZE:
            try:
                timeout = None if queue.qsize() else until - loop.time()
                batch.append(await asyncio.wait_for(queue.get(), timeout))
            except TimeoutError:
                break
        calls = [call for call, _ in batch]
        try:
            images = await run_in_threadpool(draw, [call.prompt for call in calls], [call.seed for call in calls])
        except Exception as error:
            for _, future in batch:
                if not future.cancelled():
                    future.set_exception(error)
            continue
        for (_, future), image in zip(batch, images, strict=True):
            if not future.cancelled():
                future.set_result(image)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(batches())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/generate")
async def generate(call: Call) -> dict[str, str | int]:
    future: asyncio.Future[Image.Image] = asyncio.get_running_loop().create_future()
    await queue.put((call, future))
    return {"seed": call.seed, "b64": png(await future)}
