"""The API on a real port, with a real Redis and a stand-in worker."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from redis.asyncio import Redis

from jobs.settings import ApiSettings
from jobs.testing.waiting import SAFETY_NET_S, wait_until
from service import waiting
from service.server import configured
from tests.service.stand_in_worker import StandInWorker


class PromptServer(uvicorn.Server):
    """uvicorn without its pauses of a tenth of a second at the end, which add up over hundreds of tests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with suppress(AssertionError):
            await wait_until(self._idle, timeout_s=1, pause_s=0.002)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    def _idle(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks)


@asynccontextmanager
async def running_api(settings: ApiSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that serves `settings` on its port."""
    server = PromptServer(configured(settings))
    serving = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started, pause_s=0.002)
    # Without `verify` it does not read the certificates that it has no use for here.
    base_url = f"http://127.0.0.1:{settings.port}"
    async with httpx.AsyncClient(base_url=base_url, timeout=SAFETY_NET_S, trust_env=False, verify=False) as client:
        try:
            yield client
        finally:
            server.stopping.set()
            await serving


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


@dataclass
class Clock:
    """How far the clock by which the API ends late calls is ahead of the real one."""

    ahead_s: float = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a test puts forward, so that a deadline passes when the test wants it to and not before."""
    clock = Clock()
    monkeypatch.setattr(waiting, "time", SimpleNamespace(time=lambda: time.time() + clock.ahead_s))
    monkeypatch.setattr(waiting, "POLL_S", 0.05)
    return clock
