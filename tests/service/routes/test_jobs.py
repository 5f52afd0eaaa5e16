"""Calls that do not wait, jobs looked up and cancelled, and clients that hang up."""

import asyncio
from collections.abc import Callable

import httpx

from jobs.models import LONGEST_WAIT_S
from jobs.settings import ApiSettings
from jobs.testing.waiting import outcome, wait_until
from tests.service.calls import ASYNC, noticed, start
from tests.service.clock import Clock
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker, held


async def status(api: httpx.AsyncClient, location: str) -> str:
    return (await api.get(location)).json()["status"]


async def test_a_call_may_be_answered_before_it_is_done(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    answer = await api.post("/generate", json={"prompt": "a cat", "seed": 3, "num_images": 2}, headers=ASYNC)
    body = answer.json()
    assert (answer.status_code, body["status"], body["total"], body["images"]) == (202, "queued", 2, [])
    assert answer.headers["location"] == f"/jobs/{body['id']}"
    assert answer.headers["preference-applied"] == "respond-async"

    async def completed() -> bool:
        return await status(api, answer.headers["location"]) == "completed"

    await wait_until(completed)
    job = (await api.get(answer.headers["location"])).json()
    assert [image["seed"] for image in job["images"]] == [3, 4]


async def test_cancelling_empties_the_queue_at_once(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    worker.busy = True
    running = await start(api, 8)
    await held(worker, 8)
    worker.paused = True
    await wait_until(lambda: worker.resting)
    waiting = await start(api, 3)
    assert (await status(api, running), await status(api, waiting)) == ("running", "queued")
    answer = await api.delete(waiting)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert await worker.queue.depth() == (0, 8)
    assert (await api.delete(running)).json()["status"] == "cancelled"
    assert await worker.queue.depth() == (0, 0)


async def test_what_is_finished_stays_finished(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    location = await start(api, 2)

    async def completed() -> bool:
        return await status(api, location) == "completed"

    await wait_until(completed)
    answer = await api.delete(location)
    assert (answer.json()["status"], len(answer.json()["images"])) == ("completed", 2)


async def test_an_unknown_job_cannot_be_cancelled(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    assert (await api.delete(f"/jobs/{'0' * 32}")).status_code == 404


async def test_a_waiting_call_hears_of_its_cancellation(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    worker.busy = True
    call = asyncio.create_task(api.post("/generate", json={"prompt": "a cat"}))
    await held(worker, 1)
    await wait_until(lambda: worker.seen)  # told to the worker a moment after Redis counts it as held
    await api.delete(f"/jobs/{worker.seen[0].job_id}")
    answer = await outcome(call)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fourstep:problem:job-cancelled")


async def test_images_of_a_client_that_hangs_up_are_cancelled(
    settings: ApiSettings, api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    worker.busy = True
    call = asyncio.create_task(api.post("/generate", json={"prompt": "a cat", "num_images": 3}))
    await held(worker, 3)
    call.cancel()
    await held(worker, 0)
    job_id = worker.seen[0].job_id
    assert await status(api, f"/jobs/{job_id}") == "cancelled"
    await noticed(api, "cancelled")


async def test_images_of_a_late_call_leave_the_queue(
    api: httpx.AsyncClient, worker: StandInWorker, clock: Clock
) -> None:
    worker.busy = True
    call = asyncio.create_task(api.post("/generate", json={"prompt": "a cat", "num_images": 3}))
    await held(worker, 3)
    clock.ahead_s = 3600
    assert (await call).status_code == 504
    assert await worker.queue.depth() == (0, 0)
    assert await status(api, f"/jobs/{worker.seen[0].job_id}") == "expired"


async def test_an_async_job_without_a_timeout_has_a_week(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port(), timeout_s=0.001)) as api:
        location = await start(api, 2)

        async def settled() -> bool:
            return await status(api, location) not in ("queued", "running")

        await wait_until(settled)
        assert await status(api, location) == "completed"
    assert [task.deadline for task in worker.seen] == [task.created + LONGEST_WAIT_S for task in worker.seen]


async def test_a_timeout_may_be_as_long_as_results_are_kept_if_nobody_waits(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port(), result_ttl_s=3000)) as api:
        for headers, limit in ((ASYNC, 3000), ({}, 600)):
            longest, longer = {"prompt": "a cat", "timeout": limit}, {"prompt": "a cat", "timeout": limit + 1}
            assert (await api.post("/generate", json=longest, headers=headers)).is_success
            refused = await api.post("/generate", json=longer, headers=headers)
            assert refused.status_code == 422
            (error,) = refused.json()["errors"]
            assert error == {"field": "timeout", "message": f"at most {limit} seconds", "limit": limit}


async def test_an_async_job_is_found_after_the_api_has_started_again(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port())) as first:
        location = await start(first, 2)
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port())) as second:

        async def completed() -> bool:
            return await status(second, location) == "completed"

        await wait_until(completed)
