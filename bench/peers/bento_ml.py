"""BentoML with its adaptive batching. ``bentoml serve bench.peers.bento_ml:Drawing``.

A batchable method is called with lists: a call is {"calls": [{"prompt": …, "seed": …}]}, a response is a list, too.
"""

import bentoml
from pydantic import BaseModel

from bench.peers.engine import load, png
from bench.peers.settings import BATCH_SIZE


class Call(BaseModel):
    prompt: str
    seed: int


class Picture(BaseModel):
    seed: int
    b64: str


@bentoml.service(workers=1, traffic={"timeout": 60})
class Drawing:
    def __init__(self) -> None:
        self.draw = load()

    @bentoml.api(batchable=True, max_batch_size=BATCH_SIZE, max_latency_ms=60_000)
    def generate(self, calls: list[Call]) -> list[Picture]:
        images = self.draw([call.prompt for call in calls], [call.seed for call in calls])
        return [Picture(seed=call.seed, b64=png(image)) for call, image in zip(calls, images, strict=True)]
