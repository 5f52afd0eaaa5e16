"""Idempotency keys and rates, decided in the same atomic step as the queue's bound."""

import asyncio

import pytest
from redis.asyncio import Redis

from jobs.queue.admission import Admission, IdempotencyKey, RateLimit
from jobs.queue.keys import ModelKeys, rate_record
from jobs.testing.redis_servers import seconds
from jobs.testing.samples import MODEL, sample_result, sample_tasks
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue

TTL_S = 600.0
ONCE = IdempotencyKey(client="someone", key="order 7", fingerprint="ab")


@pytest.fixture
def queue(redis: Redis) -> TaskQueue:
    return TaskQueue(redis, MODEL)


async def admit(
    queue: TaskQueue, count: int = 1, bound: int = 100, client: str = "someone", a_minute: int = 0, **conditions: object
) -> Admission:
    rate = RateLimit(client, {"images": (count, a_minute)}) if a_minute else None
    return await queue.admit(sample_tasks(count), bound, TTL_S, rate=rate, **conditions)  # type: ignore[arg-type]


async def finish(queue: TaskQueue) -> None:
    for claim in await queue.claim("w1", 100, block_s=0):
        await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)


async def test_calls_with_one_key_at_once_are_admitted_once(queue: TaskQueue) -> None:
    admissions = await asyncio.gather(*(admit(queue, 2, idempotency_key=ONCE) for _ in range(20)))
    assert sorted({admission.outcome for admission in admissions}) == ["admitted", "running"]
    assert sum(admission.ok for admission in admissions) == 1
    assert len({admission.job_id for admission in admissions}) == 1
    assert await queue.depth() == (2, 0)


async def test_a_key_names_its_job_until_and_after_it_is_finished(queue: TaskQueue) -> None:
    first = await admit(queue, idempotency_key=ONCE)
    assert (await admit(queue, idempotency_key=ONCE)).outcome == "running"
    await finish(queue)
    again = await admit(queue, idempotency_key=ONCE)
    assert (again.outcome, again.job_id) == ("finished", first.job_id)
    other_body = IdempotencyKey(ONCE.client, ONCE.key, fingerprint="cd")
    assert (await admit(queue, idempotency_key=other_body)).outcome == "mismatch"


async def test_keys_belong_to_their_client(queue: TaskQueue) -> None:
    await admit(queue, idempotency_key=ONCE)
    assert (await admit(queue, idempotency_key=IdempotencyKey("someone else", ONCE.key, "cd"))).ok


async def test_a_key_is_free_again_after_a_failure(queue: TaskQueue) -> None:
    first = await admit(queue, 2, idempotency_key=ONCE)
    await queue.cancel(first.job_id, "not wanted")
    second = await admit(queue, 2, idempotency_key=ONCE)
    assert second.ok
    assert second.job_id != first.job_id


async def test_a_refused_call_does_not_use_its_key_up(queue: TaskQueue) -> None:
    assert (await admit(queue, 3, bound=2, idempotency_key=ONCE)).outcome == "full"
    assert (await admit(queue, 3, bound=3, idempotency_key=ONCE)).ok


async def test_what_is_only_foreseen_keeps_nothing_and_finds_an_earlier_call_for_any_model(
    queue: TaskQueue, redis: Redis
) -> None:
    other, rate = TaskQueue(redis, "another"), RateLimit("someone", {"images": (1, 1)})
    assert await queue.foreseen(sample_tasks(1), 100, idempotency_key=ONCE, rate=rate) is None
    assert await redis.keys("*") == []
    first = await other.admit(sample_tasks(1), 100, TTL_S, idempotency_key=ONCE)
    for asked in (queue, other):
        found = await asked.foreseen(sample_tasks(1), 100, idempotency_key=ONCE)
        assert found
        assert (found.outcome, found.job_id, found.model) == ("running", first.job_id, "another")


async def test_keys_are_forgotten_with_their_jobs(queue: TaskQueue) -> None:
    await queue.admit(sample_tasks(1), 10, TTL_S, idempotency_key=ONCE)
    (claim,) = await queue.claim("w1", 1, block_s=0)
    await queue.commit(claim, sample_result(claim.task, b"x"), b"x", ttl_s=0.01)
    await wait_until(lambda: _admitted(queue, IdempotencyKey(ONCE.client, ONCE.key, fingerprint="cd")))


async def _admitted(queue: TaskQueue, idempotency_key: IdempotencyKey) -> bool:
    return (await admit(queue, idempotency_key=idempotency_key)).ok


async def test_a_rate_lets_a_minutes_worth_through_and_then_says_when(queue: TaskQueue, redis: Redis) -> None:
    began = await seconds(redis)
    admissions = await asyncio.gather(*(admit(queue, 3, a_minute=10) for _ in range(5)))
    assert sorted(admission.outcome for admission in admissions) == ["admitted"] * 3 + ["limited"] * 2
    refused = next(admission for admission in admissions if not admission.ok)
    passed = await seconds(redis) - began
    assert 1 <= refused.remaining <= 1 + passed / 6  # one more every six seconds
    assert 12 - passed <= refused.wait_s <= 12  # for two more images
    assert await queue.depth() == (9, 0)
    assert (await admit(queue, 1, a_minute=10)).ok
    left = (await admit(queue, 10, a_minute=10)).remaining
    assert 0 <= left <= (await seconds(redis) - began) / 6
    assert (await admit(queue, 3, client="someone else", a_minute=10)).ok
    assert (await admit(TaskQueue(redis, "another"), 10, a_minute=10)).outcome == "limited"


async def test_a_rate_recovers_evenly(queue: TaskQueue, redis: Redis) -> None:
    record = rate_record("someone")

    async def let_pass(interval_s: float) -> None:
        """Rewrite the record, which says when all images so far would be due, as if so much time had passed."""
        due = float(await redis.hget(record, "images") or 0)
        await redis.hset(record, "images", due - 1000 * interval_s)

    assert (await admit(queue, 1, a_minute=2)).ok
    assert (await admit(queue, 1, a_minute=2)).ok
    assert (await admit(queue, 1, a_minute=2)).outcome == "limited"
    await let_pass(30)
    assert (await admit(queue, 1, a_minute=2)).ok
    assert (await admit(queue, 1, a_minute=2)).outcome == "limited"
    await let_pass(60)
    assert (await admit(queue, 2, a_minute=2)).ok
    assert (await admit(queue, 1, a_minute=2)).outcome == "limited"
    assert 0 < await redis.pttl(record) <= 120_000


async def test_what_is_refused_for_a_full_queue_costs_nothing(queue: TaskQueue) -> None:
    for _ in range(3):
        assert (await admit(queue, 8, bound=5, a_minute=10)).outcome == "full"
    assert (await admit(queue, 8, bound=20, a_minute=10)).ok
    assert (await admit(queue, 8, bound=20, a_minute=10)).remaining == 2


async def test_a_job_is_charged_for_once_when_its_admission_is_sent_again(queue: TaskQueue) -> None:
    tasks = sample_tasks(6)
    rate = RateLimit("someone", {"images": (6, 10)})
    for _ in range(2):
        assert (await queue.admit(tasks, 100, TTL_S, rate=rate)).ok


async def test_each_unit_has_a_rate_of_its_own(queue: TaskQueue) -> None:
    def units(images: int, evaluations: int) -> RateLimit:
        return RateLimit("someone", {"images": (images, 10), "evaluations": (evaluations, 100)})

    assert (await queue.admit(sample_tasks(1), 100, TTL_S, rate=units(1, 67))).ok
    refused = await queue.admit(sample_tasks(1), 100, TTL_S, rate=units(1, 67))
    assert (refused.outcome, refused.over) == ("limited", "evaluations")
    assert (await queue.admit(sample_tasks(4), 100, TTL_S, rate=units(4, 16))).ok


async def test_a_full_queue_says_how_long_its_excess_takes_at_the_workers_pace(queue: TaskQueue, redis: Redis) -> None:
    async def let_pass(interval_s: float) -> None:
        """Rewrite the record, which says when counting began and was last brought up, as if so much time had passed."""
        record = ModelKeys(MODEL).throughput
        at, since = await redis.hmget(record, "at", "since")
        await redis.hset(record, mapping={"at": float(at) - interval_s, "since": float(since) - interval_s})

    assert (await admit(queue, 3, bound=2)).wait_s == 0  # no worker has shown its pace
    await admit(queue, 40)
    began = await seconds(redis)
    for claim in await queue.claim("w1", 40, block_s=0):
        await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)
        await let_pass(1.0)
    pace = 40 / (40 * 1.0 + await seconds(redis) - began)
    await admit(queue, 10, bound=10)
    refused = await admit(queue, 20, bound=10)
    assert refused.outcome == "full"
    assert refused.wait_s == pytest.approx(20 / pace, rel=0.25)
