"""Calls sent more than once under one Idempotency-Key."""

import asyncio

import httpx
import pytest
from redis.asyncio import Redis

from jobs.models import JobState
from jobs.queue.job_client import JobClient
from jobs.testing.waiting import wait_until
from service.idempotency import read_idempotency_key
from service.schemas.generate_request import GenerateRequest
from tests.service.calls import ASYNC, is_problem, noticed
from tests.service.clock import Clock
from tests.service.stand_in_worker import FAILING_PROMPT, StandInWorker, held, queued

KEY = {"Idempotency-Key": "order 7"}


async def send(api: httpx.AsyncClient, headers: dict[str, str] | None = None, **body: object) -> httpx.Response:
    return await api.post("/generate", json={"prompt": "a cat", "num_images": 2, **body}, headers=headers or KEY)


async def test_a_finished_call_sent_again_is_answered_with_the_same_result(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    first, second = await send(api), await send(api)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert len(worker.made) == 2
    assert 'fourstep_requests_total{endpoint="/generate",outcome="cached"} 1.0' in (await api.get("/metrics")).text


async def test_the_same_body_may_be_spelt_differently(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    first, second = await send(api), await send(api, format="png", mode="fast")
    assert first.json() == second.json()


def test_a_field_that_a_release_adds_changes_no_fingerprint() -> None:
    class LaterRequest(GenerateRequest):
        added: str | None = None

    asked = {"prompt": "a cat", "seed": 7, "select": {"diverse": True}}
    now, later = GenerateRequest.model_validate(asked), LaterRequest.model_validate(asked)
    assert read_idempotency_key("order 7", "me", now) == read_idempotency_key("order 7", "me", later)
    other = LaterRequest.model_validate(asked | {"added": "x"})
    assert read_idempotency_key("order 7", "me", now) != read_idempotency_key("order 7", "me", other)


async def test_another_body_under_a_used_key_is_refused(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    await send(api)
    answer = await send(api, seed=5)
    assert is_problem(answer, 422, "idempotency-key-reused")
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_parallel_calls_run_once_and_the_others_are_told(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    worker.busy = True
    calls = [asyncio.create_task(send(api)) for _ in range(5)]
    await held(worker, 2)
    await wait_until(lambda: worker.seen and sum(call.done() for call in calls) == 4)
    (running,) = [call for call in calls if not call.done()]
    told = [call.result() for call in calls if call.done()]
    assert all(is_problem(answer, 409, "idempotency-key-in-use") for answer in told)
    (location,) = {answer.headers["location"] for answer in told}
    assert location == f"/jobs/{worker.seen[0].job_id}"
    await api.delete(location)
    assert is_problem(await running, 409, "job-cancelled")
    assert len(worker.seen) == 2


async def test_a_job_that_a_failover_sets_back_is_still_running(
    api: httpx.AsyncClient, worker: StandInWorker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.busy = True
    running = asyncio.create_task(send(api))
    await held(worker, 2)
    (job,) = [key async for key in redis.scan_iter("*:job:*")]
    earlier = await redis.dump(job)
    for claim in worker.claims:
        await worker._settle(claim)
    assert (await running).status_code == 200
    read = JobClient.job

    async def read_from_replica(client: JobClient, job_id: str) -> JobState | None:
        await redis.restore(job, 60_000, earlier, replace=True)
        return await read(client, job_id)

    monkeypatch.setattr(JobClient, "job", read_from_replica)
    assert is_problem(await send(api), 409, "idempotency-key-in-use")


async def test_a_client_that_hangs_up_finds_its_images_by_the_key(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    worker.paused = True
    await wait_until(lambda: worker.resting)
    call = asyncio.create_task(send(api))
    await queued(worker, 2)
    call.cancel()
    await noticed(api, "cancelled")
    worker.paused = False
    await wait_until(lambda: len(worker.made) == 2)
    answer = await send(api)
    assert (answer.status_code, answer.json()["id"]) == (200, worker.made[0].job_id)


async def test_a_failed_call_may_be_repeated_under_its_key(
    api: httpx.AsyncClient, worker: StandInWorker, clock: Clock
) -> None:
    worker.busy = True
    late = asyncio.create_task(send(api))
    await held(worker, 2)
    clock.ahead_s = 3600
    assert is_problem(await late, 504, "deadline-expired")
    clock.ahead_s = 0
    worker.busy = False
    assert (await send(api)).status_code == 200
    other = {"Idempotency-Key": "order 8"}
    for _ in range(2):
        assert is_problem(await send(api, other, prompt=FAILING_PROMPT), 500, "generation-error")


async def test_an_async_call_is_replayed_like_any_other(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    first = await send(api, KEY | ASYNC)
    assert first.status_code == 202
    await wait_until(lambda: len(worker.made) == 2)

    async def replayed() -> bool:
        return (await send(api, KEY | ASYNC)).status_code == 200

    await wait_until(replayed)
    assert (await send(api, KEY | ASYNC)).json()["id"] == first.json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_has_a_length(api: httpx.AsyncClient, worker: StandInWorker, key: str) -> None:
    assert is_problem(await send(api, {"Idempotency-Key": key}), 422, "invalid-request")
