"""Ray Serve with @serve.batch. ``python -m bench.peers.ray_serve``."""

import asyncio

import ray
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel
from ray import serve

from bench.peers.engine import load, png
from bench.peers.settings import BATCH_SIZE, PORT, WAIT_S


class Call(BaseModel):
    prompt: str
    seed: int


app = FastAPI()


@serve.deployment(max_ongoing_requests=100)
@serve.ingress(app)
class Drawing:
    def __init__(self) -> None:
        self.draw = load()

    @serve.batch(max_batch_size=BATCH_SIZE, batch_wait_timeout_s=WAIT_S)
    async def batch(self, calls: list[Call]) -> list[Image.Image]:
        return await asyncio.to_thread(self.draw, [call.prompt for call in calls], [call.seed for call in calls])

    @app.post("/generate")
    async def generate(self, call: Call) -> dict[str, str | int]:
        return {"seed": call.seed, "b64": png(await self.batch(call))}


if __name__ == "__main__":
    ray.init(include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Drawing.bind(), blocking=True)  # type: ignore[attr-defined]
