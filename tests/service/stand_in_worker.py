"""A worker without a model: claims real tasks and commits pictures in one colour drawn from prompt, seed and size."""

import asyncio
import hashlib
import io
import time

from PIL import Image
from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs.image_store import ImageStore
from jobs.models import ImageTask
from jobs.queue.claims import Claim
from jobs.testing.samples import MODEL, sample_card, sample_result
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue

FAILING_PROMPT = "please fail"
REFUSED_PROMPT = "please refuse"


class StandInWorker:
    """Serves until `stopped`; `busy` makes it take tasks without finishing them, `paused` makes it take none.

    A `patient` one outlives absences of Redis. With a `store` its pictures are kept there.
    """

    def __init__(self, redis: Redis, model: str = MODEL, patient: bool = False) -> None:
        self.queue = TaskQueue(redis, model)
        self.made: list[ImageTask] = []
        self.seen: list[ImageTask] = []
        self.claims: list[Claim] = []
        self.busy = False
        self.paused = False
        self.resting = False
        self.stopped = False
        self.store: ImageStore | None = None
        self.card = sample_card(model)
        self._id = f"stand-in-{model}"
        self.patient = patient

    async def run(self) -> None:
        while not self.stopped:
            try:
                await self._turn()
            except RedisError:
                if not self.patient:
                    raise
                await asyncio.sleep(0.1)

    async def _turn(self) -> None:
        await self.queue.announce(self._id, self.card, ttl_s=600)
        self.resting = self.paused
        if self.paused:
            await asyncio.sleep(0.02)
            return
        for claim in await self.queue.claim(self._id, count=8, block_s=0.1):
            self.seen.append(claim.task)
            self.claims.append(claim)
            if not self.busy:
                await self._settle(claim)

    async def _settle(self, claim: Claim) -> None:
        task = claim.task
        if task.prompt == FAILING_PROMPT:
            await self.queue.fail(claim, "error", "asked to")
        elif task.prompt == REFUSED_PROMPT:
            await self.queue.fail(claim, "refused", "the server's safety model takes the picture for dark")
        elif task.deadline is not None and task.deadline < time.time():
            await self.queue.fail(claim, "expired", "too late")
        else:
            images = _images(task)
            files = [await asyncio.to_thread(_picture, image) for image in images]
            self.made += images
            results = [sample_result(image, data) for image, data in zip(images, files, strict=True)]
            for result, data in zip(results, files, strict=True) if self.store else ():
                await self.store.put(result.sha256, result.format, data)
            await self.queue.commit_all(claim, results, None if self.store else files, ttl_s=600)


async def paused(worker: StandInWorker) -> None:
    worker.paused = True
    await wait_until(lambda: worker.resting)


async def held(worker: StandInWorker, count: int) -> None:
    """Wait until the worker holds `count` images, and none waits."""

    async def reached() -> bool:
        return await worker.queue.depth() == (0, count)

    await wait_until(reached)


async def queued(worker: StandInWorker, count: int) -> None:
    """Wait until `count` images wait, and the worker holds none."""

    async def reached() -> bool:
        return await worker.queue.depth() == (count, 0)

    await wait_until(reached)


def _images(task: ImageTask) -> list[ImageTask]:
    """The images of the task; of a diverse set, those of every second candidate, as long as there are enough."""
    if task.select is None:
        return [task]
    chosen = sorted(range(task.select.candidates), key=lambda number: number % 2)[: task.select.images]
    return [
        task.model_copy(update={"index": index, "seed": task.seed + number, "select": None})
        for index, number in enumerate(sorted(chosen))
    ]


def _picture(task: ImageTask) -> bytes:
    digest = hashlib.sha256(f"{task.prompt}/{task.seed}/{task.width}x{task.height}".encode()).digest()
    buffer = io.BytesIO()
    Image.new("RGB", (task.width, task.height), tuple(digest[:3])).save(buffer, task.format, quality=task.quality)
    return buffer.getvalue()
