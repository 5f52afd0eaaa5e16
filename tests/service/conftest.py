"""The API on a real port, with a real Redis and a stand-in worker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from redis.asyncio import Redis

from jobs.settings import ApiSettings
from service.server import configured
from tests.service.stand_in_worker import StandInWorker
from tests.waiting import wait_until


@asynccontextmanager
async def running_api(settings: ApiSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that serves `settings` on its port."""
    server = uvicorn.Server(configured(settings, graceful_shutdown_s=1))
    serving = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}", timeout=20) as client:
        yield client
    server.should_exit = True
    await serving


@pytest.fixture
def settings(redis_url: str, free_port: Callable[[], int]) -> ApiSettings:
    return ApiSettings(redis_url=redis_url, port=free_port(), max_queued_images=64)


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
