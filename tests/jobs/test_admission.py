"""Idempotency keys and rates, decided in the same atomic step as the queue's bound."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from jobs.admission import Admission, IdempotencyKey, RateLimit
from jobs.keys import ModelKeys
from jobs.queue import TaskQueue
from tests.samples import MODEL, sample_result, sample_tasks
from tests.waiting import wait_until

TTL_S = 60.0
ONCE = IdempotencyKey(client="someone", key="order 7", fingerprint="ab")


@pytest.fixture
def queue(redis: Redis) -> TaskQueue:
    return TaskQueue(redis, MODEL)


async def admit(queue: TaskQueue, count: int = 1, bound: int = 100, **conditions: object) -> Admission:
    return await queue.admit(sample_tasks(count), bound, TTL_S, **conditions)  # type: ignore[arg-type]


async def finish(queue: TaskQueue) -> None:
    for claim in await queue.claim("w1", 100, block_s=0):
        await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)


async def test_calls_with_one_key_at_once_are_admitted_once(queue: TaskQueue) -> None:
    admissions = await asyncio.gather(*(admit(queue, 2, once=ONCE) for _ in range(20)))
    assert sorted({admission.outcome for admission in admissions}) == ["admitted", "running"]
    assert sum(admission.ok for admission in admissions) == 1
    assert len({admission.job_id for admission in admissions}) == 1
    assert await queue.depth() == (2, 0)


async def test_a_key_names_its_job_until_and_after_it_is_finished(queue: TaskQueue) -> None:
    first = await admit(queue, once=ONCE)
    assert (await admit(queue, once=ONCE)).outcome == "running"
    await finish(queue)
    again = await admit(queue, once=ONCE)
    assert (again.outcome, again.job_id) == ("finished", first.job_id)
    other_body = IdempotencyKey(ONCE.client, ONCE.key, fingerprint="cd")
    assert (await admit(queue, once=other_body)).outcome == "mismatch"


async def test_keys_belong_to_their_client(queue: TaskQueue) -> None:
    await admit(queue, once=ONCE)
    assert (await admit(queue, once=IdempotencyKey("someone else", ONCE.key, "cd"))).ok


async def test_a_key_is_free_again_after_a_failure(queue: TaskQueue) -> None:
    first = await admit(queue, 2, once=ONCE)
    await queue.cancel(first.job_id, "not wanted")
    second = await admit(queue, 2, once=ONCE)
    assert second.ok
    assert second.job_id != first.job_id


async def test_a_refused_call_does_not_use_its_key_up(queue: TaskQueue) -> None:
    assert (await admit(queue, 3, bound=2, once=ONCE)).outcome == "full"
    assert (await admit(queue, 3, bound=3, once=ONCE)).ok


async def test_keys_are_forgotten_with_their_jobs(queue: TaskQueue) -> None:
    await queue.admit(sample_tasks(1), 10, 0.05, once=ONCE)
    await wait_until(lambda: _admitted(queue, IdempotencyKey(ONCE.client, ONCE.key, fingerprint="cd")))


async def _admitted(queue: TaskQueue, once: IdempotencyKey) -> bool:
    return (await admit(queue, once=once)).ok


async def test_a_rate_lets_a_minutes_worth_through_and_then_says_when(queue: TaskQueue) -> None:
    rate = RateLimit("someone", images_per_minute=10)
    admissions = await asyncio.gather(*(admit(queue, 3, rate=rate) for _ in range(5)))
    assert sorted(admission.outcome for admission in admissions) == ["admitted"] * 3 + ["limited"] * 2
    refused = next(admission for admission in admissions if not admission.ok)
    assert refused.remaining_images == 1
    assert 10 < refused.wait_s <= 12  # two more images at one every six seconds
    assert await queue.depth() == (9, 0)
    assert (await admit(queue, 1, rate=rate)).remaining_images == 0
    assert (await admit(queue, 3, rate=RateLimit("someone else", images_per_minute=10))).ok


async def test_a_rate_recovers_evenly(queue: TaskQueue, redis: Redis) -> None:
    rate = RateLimit("someone", images_per_minute=600)
    assert (await admit(queue, 60, bound=5000, rate=rate)).remaining_images == 540
    assert (await admit(queue, 540, bound=5000, rate=rate)).ok
    assert (await admit(queue, 2, bound=5000, rate=rate)).outcome == "limited"

    async def two_fit() -> bool:
        return (await admit(queue, 2, bound=5000, rate=rate)).ok

    await wait_until(two_fit, timeout_s=2)
    assert 0 < await redis.pttl(ModelKeys(MODEL).rate("someone")) <= 120_000


async def test_what_is_refused_for_a_full_queue_costs_nothing(queue: TaskQueue) -> None:
    rate = RateLimit("someone", images_per_minute=10)
    assert (await admit(queue, 8, bound=5, rate=rate)).remaining_images == 10
    assert (await admit(queue, 8, bound=20, rate=rate)).remaining_images == 2


async def test_a_full_queue_says_how_long_its_excess_takes_at_the_workers_pace(queue: TaskQueue) -> None:
    assert (await admit(queue, 3, bound=2)).wait_s == 0  # no worker has shown its pace
    await admit(queue, 40)
    began = time.monotonic()
    for claim in await queue.claim("w1", 40, block_s=0):
        await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)
        await asyncio.sleep(0.02)
    pace = 40 / (time.monotonic() - began)
    await admit(queue, 10, bound=10)
    refused = await admit(queue, 20, bound=10)
    assert refused.outcome == "full"
    assert refused.wait_s == pytest.approx(20 / pace, rel=0.25)
