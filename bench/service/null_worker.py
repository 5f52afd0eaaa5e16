"""A worker without an engine, which settles every image with one tiny PNG: `python -m bench.service.null_worker`."""

import asyncio
import os
import time

import typer
import uvloop

from jobs.models import EffectiveSettings, ModelCard
from jobs.queue.claims import Claim
from jobs.queue.connection import open_redis
from jobs.queue.worker_queue import WorkerQueue
from jobs.testing.samples import sample_card, sample_result

MODEL = "null"
# A PNG of one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301"
    "0100c9fe92ef0000000049454e44ae426082"
)
AHEAD = 64
CARD = ModelCard(
    name=MODEL,
    sha256=sample_card().sha256,  # of which the samples' results say that they are
    family="sd3",
    method="none",
    steps=4,
    evaluations=4,
    sizes=[(64, 64)],
    max_sequence_length=16,
    version="0",
    settings=EffectiveSettings(device="none", dtype="none"),
)


class NullWorker:
    """Settles at most `rate` images a second, 0 for as fast as it can; claims ahead, as a real worker does.

    Jobs are kept for `ttl_s` seconds.
    """

    def __init__(self, queue: WorkerQueue, rate: float, ttl_s: float = 5.0) -> None:
        self._queue = queue
        self._rate = rate
        self._ttl_s = ttl_s
        self._claimed: asyncio.Queue[Claim] = asyncio.Queue(AHEAD)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._announce())
            group.create_task(self._work(group))
            while True:
                for claim in await self._queue.claim("null", AHEAD, block_s=1):
                    await self._claimed.put(claim)

    async def _announce(self) -> None:
        while True:
            await self._queue.registry.announce("null", CARD, ttl_s=30)
            await asyncio.sleep(10)

    async def _work(self, group: asyncio.TaskGroup) -> None:
        free_at = time.monotonic()
        while True:
            if self._claimed.empty():
                free_at = max(free_at, time.monotonic())
            claim = await self._claimed.get()
            if self._rate:
                free_at += 1 / self._rate
                await asyncio.sleep(max(0.0, free_at - time.monotonic()))
            group.create_task(self._queue.commit(claim, sample_result(claim.task, PNG), PNG, self._ttl_s))


def main(rate: float = 0.0, ttl_s: float = 5.0) -> None:
    async def serve() -> None:
        await NullWorker(WorkerQueue(open_redis(os.environ["FOURSTEP_REDIS_URL"]), MODEL), rate, ttl_s).run()

    uvloop.run(serve())


if __name__ == "__main__":
    typer.run(main)
