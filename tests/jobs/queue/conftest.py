"""The queue of one model, and a client of Redis for tests that wait for long."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from jobs.queue import connection, worker_queue
from jobs.queue.connection import open_redis
from jobs.testing.samples import MODEL
from tests.task_queue import TaskQueue


@pytest.fixture
async def patient_redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Redis]:
    """A client whose blocking reads may wait for longer than any test runs, so that none ends by itself."""
    for module in (connection, worker_queue):
        monkeypatch.setattr(module, "SOCKET_TIMEOUT_S", 3600.0)
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def queue(redis: Redis) -> TaskQueue:
    return TaskQueue(redis, MODEL)
