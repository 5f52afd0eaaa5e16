"""One model's queue with all its ends, for tests that play clients and workers at once."""

from collections.abc import Sequence

from redis.asyncio import Redis

from jobs.models import ImageResult
from jobs.queue.claims import Claim
from jobs.queue.job_client import JobClient
from jobs.queue.model_registry import ModelRegistry
from jobs.queue.worker_queue import WorkerQueue
from jobs.testing.waiting import wait_until


class TaskQueue(JobClient, WorkerQueue, ModelRegistry):
    def __init__(self, redis: Redis, model: str) -> None:
        for end in (JobClient, WorkerQueue, ModelRegistry):
            end.__init__(self, redis, model)
        self.registry = self

    async def images(self, results: Sequence[ImageResult]) -> list[bytes | None]:
        """The bytes of several committed images."""
        return [await self.image(result.sha256, result.format) for result in results]

    async def take_over(self, worker_id: str, count: int) -> list[Claim]:
        """Take `count` different tasks over from workers that are gone; each may be had more than once meanwhile."""
        taken: dict[str, Claim] = {}

        async def took_all() -> bool:
            taken.update({claim.entry_id: claim for claim in await self.reclaim(worker_id, 0.001, count)})
            return len(taken) == count

        await wait_until(took_all)
        return list(taken.values())
