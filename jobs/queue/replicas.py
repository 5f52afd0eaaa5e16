"""Waits until replicas of Redis have a job, so that a failover to one of them does not lose it."""

import asyncio
from typing import Any

from redis.asyncio import Redis

from jobs.queue.scripts import milliseconds, register_script

# Replicas that follow answer within some milliseconds. Shorter than any client's socket timeout.
WAIT_S = 1.0


class Replicas:
    """The `count` replicas that must have a job before its call is acknowledged, by Redis's command WAIT.

    Jobs of concurrent callers wait together: a single connection is held, also while replicas are away.
    """

    def __init__(self, redis: Redis, count: int) -> None:
        self._redis: Any = redis
        self._count = count
        self._write_again: Any = register_script(redis, "write_again", allow_oom=True).script
        self._gathered: list[str] = []
        self._next: asyncio.Task[set[str]] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def have(self, job_key: str) -> bool:
        """Return whether the replicas have the job within WAIT_S of being asked; False for a job that is unknown.

        Raises redis.exceptions.RedisError when Redis is away.
        """
        self._gathered.append(job_key)
        if self._next is None:
            self._next = asyncio.create_task(self._ask())
        return job_key in await asyncio.shield(self._next)

    async def _ask(self) -> set[str]:
        """Return those of the jobs gathered by now that the replicas have."""
        async with self._one_at_a_time:
            jobs, self._gathered, self._next = self._gathered, [], None
            # WAIT is about the writes of its own connection; the job was written by another one.
            async with self._redis.pipeline(transaction=False) as pipeline:
                for job in jobs:
                    pipeline.eval(self._write_again, 1, job)
                pipeline.wait(self._count, milliseconds(WAIT_S))
                *known, reached = await pipeline.execute()
        return {job for job, is_known in zip(jobs, known, strict=True) if is_known and reached >= self._count}
