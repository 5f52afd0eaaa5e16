"""The API on a real port, with a real Redis and a stand-in worker."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import httpx
import pytest
from redis.asyncio import Redis

from jobs.settings import ApiSettings
from jobs.testing.waiting import wait_until
from service import waiting
from tests.service.clock import Clock
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker


@pytest.fixture
def settings(redis_url: str, free_port: Callable[[], int]) -> ApiSettings:
    return ApiSettings(redis_url=redis_url, port=free_port(), max_queued_images=64, timeout_s=600)


@pytest.fixture
async def api(settings: ApiSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with running_api(settings) as client:
        yield client


@pytest.fixture
async def worker(redis: Redis) -> AsyncIterator[StandInWorker]:
    """A stand-in worker that is warm when the test starts."""
    stand_in = StandInWorker(redis)
    running = asyncio.create_task(stand_in.run())
    await wait_until(stand_in.queue.workers)
    yield stand_in
    stand_in.stopped = True
    await running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a test puts forward, so that a deadline passes when the test wants it to and not before."""
    clock = Clock()
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + clock.ahead_s))
    monkeypatch.setattr(waiting, "POLL_S", 0.05)
    return clock
