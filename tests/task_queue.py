"""One model's queue with all its ends, for tests that play clients and workers at once."""

from collections.abc import Sequence

from redis.asyncio import Redis

from jobs.models import ImageResult
from jobs.queue.job_client import JobClient
from jobs.queue.model_registry import ModelRegistry
from jobs.queue.worker_queue import WorkerQueue


class TaskQueue(JobClient, WorkerQueue, ModelRegistry):
    def __init__(self, redis: Redis, model: str) -> None:
        for end in (JobClient, WorkerQueue, ModelRegistry):
            end.__init__(self, redis, model)
        self.registry = self

    async def images(self, results: Sequence[ImageResult]) -> list[bytes | None]:
        """The bytes of several committed images."""
        return [await self.image(result.sha256, result.format) for result in results]
