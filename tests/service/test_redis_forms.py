"""A call from HTTP to a worker and back, on each kind of Redis that can be named."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from jobs.queue.connection import open_redis
from jobs.settings import ApiSettings
from jobs.testing import redis_servers
from jobs.testing.waiting import outcome, wait_until
from tests.programs import skip_for_lack_of
from tests.service.calls import ASYNC
from tests.service.event_stream import all_events
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker


@asynccontextmanager
async def serving(redis_url: str, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API with a stand-in worker, both on `redis_url`."""
    redis = open_redis(redis_url)
    worker = StandInWorker(redis, patient=True)
    running = asyncio.create_task(worker.run())
    await wait_until(worker.queue.workers)
    async with running_api(ApiSettings(redis_url=redis_url, port=port)) as api:
        yield api
    worker.stopped = True
    await running
    await redis.aclose()


async def round_trip(api: httpx.AsyncClient) -> None:
    """A waiting call, an async one with its events, its images by address, a replay and a cancellation."""
    assert (await api.get("/readyz")).status_code == 200
    body = {"prompt": "a cat", "seed": 3, "num_images": 3}
    made = await api.post("/generate", json=body, headers={"Idempotency-Key": "one"})
    assert made.status_code == 200, made.text
    again = await api.post("/generate", json=body, headers={"Idempotency-Key": "one"})
    assert again.json() == made.json()
    location = (await api.post("/generate", json=body, headers=ASYNC)).headers["location"]
    events = await outcome(all_events(api, location))
    assert events[-1].name == "completed"
    images = [(await api.get(image["url"])).content for image in events[-1].data["images"]]
    assert images == [base64.b64decode(image["b64"]) for image in made.json()["images"]]
    assert (await api.delete(location)).json()["status"] == "completed"
    assert 'fourstep_workers{model="emoji-test"} 1.0' in (await api.get("/metrics")).text


@pytest.mark.slow
async def test_cluster(tmp_path: Path, free_port: Callable[[], int]) -> None:
    with redis_servers.cluster(tmp_path) as redis_url:
        async with serving(redis_url, free_port()) as api:
            await round_trip(api)


@pytest.mark.slow
@pytest.mark.needs("openssl")
async def test_tls(tmp_path: Path, free_port: Callable[[], int]) -> None:
    binary = redis_servers.binary_with_tls() or skip_for_lack_of("redis-server", " built with TLS")
    with redis_servers.tls(tmp_path, binary) as redis_url:
        async with serving(redis_url, free_port()) as api:
            await round_trip(api)
        untrusted = ApiSettings(redis_url=redis_url.partition("?")[0], port=free_port())
        async with running_api(untrusted) as api:
            assert (await api.get("/readyz")).status_code == 503


@pytest.mark.slow
async def test_sentinel_and_its_failover(tmp_path: Path, free_port: Callable[[], int]) -> None:
    with redis_servers.sentinel(tmp_path) as servers:
        async with serving(servers.url, free_port()) as api:
            await round_trip(api)
            servers.kill_primary()

            async def served_again() -> bool:
                body = {"prompt": "after the failover", "timeout": 3}
                return (await api.post("/generate", json=body)).status_code == 200

            await wait_until(served_again)


@pytest.mark.parametrize(
    ("redis_url", "reason"),
    [
        ("http://:secret@somewhere", "redis\\+cluster://"),
        ("redis+sentinal://:secret@somewhere/images", "redis\\+sentinel://"),
        ("redis+sentinel://:secret@somewhere", "name of its service"),
        ("redis+cluster://:secret@one:1,two:x", "'two:x'"),
        ("redis+cluster://:secret@", "host and port"),
    ],
)
def test_other_addresses_are_refused_without_quoting_the_password(redis_url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        open_redis(redis_url)
    assert "secret" not in str(caught.value)
