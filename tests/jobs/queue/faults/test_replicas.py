"""A call is acknowledged when replicas have it: a failover then loses nothing that was promised."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from jobs.models import WebhookTarget
from jobs.queue import replicas
from jobs.queue.admission import IdempotencyKey, RateLimit
from jobs.queue.connection import open_redis
from jobs.queue.job_client import JobClient
from jobs.queue.keys import ModelKeys
from jobs.queue.replicas import Replicas
from jobs.queue.webhook_stream import WebhookStream
from jobs.settings import ApiSettings
from jobs.testing import redis_servers
from jobs.testing.samples import MODEL, sample_tasks
from jobs.testing.waiting import wait_until
from tests.service.calls import ASYNC, is_problem
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker

KEYS = ModelKeys(MODEL)
TARGET = WebhookTarget(url="https://hooks.example/", caller="", base_url="https://here.example")
ONCE = IdempotencyKey(client="someone", key="order 7", fingerprint="ab")


@dataclass(frozen=True)
class Pair:
    """A primary and its one replica; the replica can be stopped for a while."""

    url: str
    client: AsyncRedis
    replica: Redis
    process: subprocess.Popen

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    async def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        await wait_until(lambda: self._follows())

    async def _follows(self) -> bool:
        await self.client.set("written", "now")
        return self.replica.get("written") == b"now"


@pytest.fixture
def ports(free_port: Callable[[], int]) -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def replica_process(tmp_path: Path, ports: tuple[int, int]) -> Iterator[subprocess.Popen]:
    primary, replica = ports
    with (
        redis_servers.server(tmp_path / "primary", "repl-diskless-sync-delay 0", port=primary),
        redis_servers.server(tmp_path / "replica", f"replicaof 127.0.0.1 {primary}", port=replica) as process,
    ):
        yield process
        process.send_signal(signal.SIGCONT)


@pytest.fixture
async def pair(replica_process: subprocess.Popen, ports: tuple[int, int]) -> AsyncIterator[Pair]:
    url = f"redis://127.0.0.1:{ports[0]}/0"
    client = open_redis(url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        pair = Pair(url, client, stack.enter_context(Redis(port=ports[1], socket_timeout=60)), replica_process)
        await pair.go_on()
        yield pair


async def test_a_job_is_admitted_when_its_replica_has_it(pair: Pair) -> None:
    queue = JobClient(pair.client, MODEL, replicas=Replicas(pair.client, 1))
    admissions = await asyncio.gather(*(queue.admit(sample_tasks(2), 1000, 600) for _ in range(40)))
    assert all(admission.ok for admission in admissions)
    assert [pair.replica.hget(KEYS.job(one.job_id), "total") for one in admissions] == [b"2"] * 40


async def test_a_job_that_no_replica_has_is_cancelled_and_costs_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "WAIT_S", 0.05)
    queue, rate = JobClient(pair.client, MODEL, replicas=Replicas(pair.client, 1)), RateLimit("me", {"images": (2, 2)})
    pair.stop()
    refused = await queue.admit(sample_tasks(2), 100, 600, idempotency_key=ONCE, rate=rate, webhook=TARGET)
    assert refused.outcome == "unreplicated"
    assert await WebhookStream(pair.client, MODEL).take((60.0,), 9, 9) == []  # its caller never heard of the job
    assert await queue.depth() == (0, 0)
    state = await queue.job(refused.job_id)
    assert state
    assert [failure.reason for failure in state.failures] == ["cancelled"] * 2
    await pair.go_on()
    monkeypatch.setattr(replicas, "WAIT_S", 60.0)
    assert (await queue.admit(sample_tasks(2), 100, 600, idempotency_key=ONCE, rate=rate)).ok
    assert await queue.depth() == (2, 0)


async def test_an_earlier_job_is_promised_again_when_its_replica_has_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "WAIT_S", 0.05)
    unguarded = JobClient(pair.client, MODEL)
    queue = JobClient(pair.client, MODEL, replicas=Replicas(pair.client, 1))
    pair.stop()
    first = await unguarded.admit(sample_tasks(1), 100, 600, idempotency_key=ONCE)
    for asked in (
        queue.admit(sample_tasks(1), 100, 600, idempotency_key=ONCE),
        queue.foreseen(sample_tasks(1), 100, idempotency_key=ONCE),
    ):
        again = await asked
        assert again
        assert again.outcome == "unreplicated"
    assert await queue.depth() == (1, 0)  # the earlier call may have been promised it
    await pair.go_on()
    monkeypatch.setattr(replicas, "WAIT_S", 60.0)
    again = await queue.admit(sample_tasks(1), 100, 600, idempotency_key=ONCE)
    assert (again.outcome, again.job_id) == ("running", first.job_id)


async def test_a_job_that_a_failover_lost_is_not_promised(pair: Pair) -> None:
    """The replica that took the primary's place has replicas of its own, but not the job."""
    assert not await Replicas(pair.client, 1).have(KEYS.job("of the old primary"))
    assert not await pair.client.exists(KEYS.job("of the old primary"))


async def test_callers_are_refused_while_the_replica_is_away_and_nothing_is_doubled(
    pair: Pair, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "WAIT_S", 0.05)
    worker = StandInWorker(pair.client)
    running = asyncio.create_task(worker.run())
    await wait_until(worker.queue.workers)
    async with running_api(ApiSettings(redis_url=pair.url, port=free_port(), redis_replicas=1)) as api:
        pair.stop()
        headers = {"Idempotency-Key": "order 7"}
        cat = {"prompt": "a cat"}
        refused = [
            await api.post("/generate", json=cat, headers=headers),
            await api.post("/generate", json=cat, headers=ASYNC),
            await api.post("/v1/images/generations", json=cat),
        ]
        for answer in refused:
            assert is_problem(answer, 503, "store-unwritable")
            assert int(answer.headers["retry-after"]) > 0
            assert "replica" in answer.json()["detail"]
        await pair.go_on()
        monkeypatch.setattr(replicas, "WAIT_S", 60.0)
        first, second = [await api.post("/generate", json=cat, headers=headers) for _ in range(2)]
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json()["id"] == second.json()["id"]
    worker.stopped = True
    await running


def test_a_cluster_has_no_replicas_to_wait_for() -> None:
    with pytest.raises(ValueError, match="redis_replicas"):
        ApiSettings(redis_url="redis+cluster://127.0.0.1:7000", redis_replicas=1)
