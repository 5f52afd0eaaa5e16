"""An Idempotency-Key names one call, whichever model it is for and whatever the default model is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from redis.asyncio import Redis

from jobs.queue.admission import IdempotencyKey
from jobs.queue.callers.call_keys import CallKeys
from jobs.queue.keys import call_key
from jobs.settings import ApiSettings
from jobs.testing.samples import sample_tasks
from jobs.testing.waiting import wait_until
from tests.service.calls import is_problem
from tests.service.running_api import running_api
from tests.service.stand_in_worker import FAILING_PROMPT, StandInWorker
from tests.task_queue import TaskQueue

KEY = {"Idempotency-Key": "order 7"}


@asynccontextmanager
async def two_defaults(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> AsyncIterator[tuple[list[StandInWorker], list[httpx.AsyncClient]]]:
    """Workers of two models, and an API with each as its default."""
    workers = [StandInWorker(redis, model) for model in ("one", "other")]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    for worker in workers:
        await wait_until(worker.queue.workers)
    settings = [
        ApiSettings(redis_url=redis_url, port=free_port(), default_model=worker.queue.model) for worker in workers
    ]
    async with running_api(settings[0]) as first, running_api(settings[1]) as second:
        yield workers, [first, second]
    for worker in workers:
        worker.stopped = True
    await asyncio.gather(*running)


async def send(api: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await api.post("/generate", json={"prompt": "a cat", "num_images": 2, **body}, headers=KEY)


async def test_another_default_model_makes_no_second_job(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> None:
    async with two_defaults(redis, redis_url, free_port) as (workers, apis):
        answers = [await send(api) for api in (*apis, *apis)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert len({answer.text for answer in answers}) == 1
        assert [len(worker.made) for worker in workers] == [2, 0]


async def test_bodies_that_differ_in_the_model_alone_differ(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> None:
    async with two_defaults(redis, redis_url, free_port) as (workers, (api, _)):
        assert (await send(api, model="one")).status_code == 200
        assert is_problem(await send(api, model="other"), 422, "idempotency-key-reused")
        assert [len(worker.made) for worker in workers] == [2, 0]


@pytest.mark.slow
async def test_calls_at_once_under_two_defaults_are_one_job(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> None:
    async with two_defaults(redis, redis_url, free_port) as (workers, apis):
        for number in range(20):
            key = {"Idempotency-Key": f"call {number}"}
            body = {"prompt": "a cat", "response": "url"}
            calls = [api.post("/generate", json=body, headers=key) for api in (*apis, *reversed(apis), *apis)]
            answers = await asyncio.gather(*calls)
            assert {answer.status_code for answer in answers} <= {200, 409}
            assert len({answer.json()["id"] for answer in answers if answer.status_code == 200}) == 1
        assert sum(len(worker.made) for worker in workers) == 20


async def test_a_key_whose_call_failed_may_go_to_another_model(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> None:
    async with two_defaults(redis, redis_url, free_port) as (workers, (first, second)):
        assert is_problem(await send(first, prompt=FAILING_PROMPT), 500, "generation-error")
        workers[1].busy = True
        waiting = asyncio.create_task(send(second, prompt=FAILING_PROMPT))
        await wait_until(lambda: len(workers[1].seen) == 2)
        # A call that looked the key up before it moved is told so, and finds the job that it names since then.
        assert is_problem(await send(first, prompt=FAILING_PROMPT), 409, "idempotency-key-in-use")
        await first.delete(f"/jobs/{workers[1].seen[0].job_id}")
        assert is_problem(await waiting, 409, "job-cancelled")


async def test_a_model_that_gave_a_key_away_admits_nothing_under_it(redis: Redis) -> None:
    key, queue = IdempotencyKey("someone", "order 7", "ab"), TaskQueue(redis, "one")
    keys = CallKeys(redis)
    assert await keys.find(key, "one", 60_000) is None
    under_way = await keys.find(key, "other", 60_000)
    assert under_way is not None
    assert under_way.outcome == "moved"
    await redis.set(call_key("someone", "order 7"), "one 0")  # named long ago
    assert await keys.find(key, "other", 60_000) is None
    late = await queue._queue_all(sample_tasks(1), 10, 60_000, "", "", "", key, None)
    assert late.outcome == "moved"
    assert await queue.depth() == (0, 0)
