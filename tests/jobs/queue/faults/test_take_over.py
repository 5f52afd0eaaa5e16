"""Leases: who may take over which tasks, and what is remembered of them."""

import asyncio
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from jobs.queue.claims import Claim
from jobs.queue.keys import WORKER_GROUP, ModelKeys
from jobs.testing.samples import MODEL, sample_card, sample_result, sample_tasks
from jobs.testing.waiting import wait_until
from tests.jobs.queue.claiming import TTL_S, admit_and_claim
from tests.task_queue import TaskQueue

IDLE_S = 300.0


async def test_double_delivery_commits_once(queue: TaskQueue) -> None:
    (claim,) = await admit_and_claim(queue, 1)
    await _leave_idle(queue, [claim])
    (again,) = await queue.reclaim("w2", idle_s=IDLE_S, count=1)
    assert again.deliveries == 2
    first, second = sample_result(claim.task, b"first"), sample_result(claim.task, b"second")
    outcomes = await asyncio.gather(
        queue.commit(claim, first, b"first", TTL_S), queue.commit(again, second, b"second", TTL_S)
    )
    assert sorted(outcomes) == [False, True]
    state = await queue.job(claim.task.job_id)
    assert state is not None
    assert state.results == [first if outcomes[0] else second]
    assert await queue.depth() == (0, 0)


async def test_only_lost_leases_are_taken_over(queue: TaskQueue) -> None:
    kept, lost = claims = await admit_and_claim(queue, 2)
    await _leave_idle(queue, claims)
    await queue.renew("w1", [kept])
    taken = await queue.reclaim("w2", idle_s=IDLE_S, count=8)
    assert [(claim.entry_id, claim.task, claim.deliveries) for claim in taken] == [(lost.entry_id, lost.task, 2)]


async def test_take_over_finds_lost_leases_behind_many_kept_ones(queue: TaskQueue) -> None:
    claims = await admit_and_claim(queue, 60)
    await _leave_idle(queue, claims)
    await queue.renew("w1", claims[:-1])
    taken = await queue.reclaim("w2", idle_s=IDLE_S, count=1)
    assert [claim.entry_id for claim in taken] == [claims[-1].entry_id]


async def _leave_idle(queue: TaskQueue, claims: list[Claim]) -> None:
    """Age the leases as if nobody had renewed them for IDLE_S."""
    entries, idle_ms = [claim.entry_id for claim in claims], int(1000 * IDLE_S)
    tasks = ModelKeys(MODEL).tasks
    await queue._redis.xclaim(tasks, WORKER_GROUP, "w1", 0, entries, idle=idle_ms, justid=True)


async def test_handed_back_tasks_are_claimable_at_once_with_a_clean_record(queue: TaskQueue) -> None:
    claims = await admit_and_claim(queue, 3)
    await queue.commit(claims[0], sample_result(claims[0].task, b"done"), b"done", TTL_S)
    await queue.requeue(claims)
    assert await queue.depth() == (2, 0)
    again = await queue.claim("w2", 8, block_s=0)
    assert [(claim.task, claim.deliveries) for claim in again] == [(claim.task, 1) for claim in claims[1:]]


async def test_tasks_of_a_worker_that_is_late_but_alive_are_left_to_it(queue: TaskQueue) -> None:
    await queue.admit(sample_tasks(2), 10, TTL_S)
    await queue.announce("w1", sample_card(), ttl_s=TTL_S)
    claims = await queue.claim("w1", 2, block_s=0)
    await _leave_idle(queue, claims)
    assert await queue.reclaim("w2", idle_s=IDLE_S, count=2) == []
    await queue.deregister("w1")
    taken = await queue.reclaim("w2", idle_s=IDLE_S, count=2)
    assert [(claim.taken_from, claim.suspect) for claim in taken] == [("w1", True)] * 2


async def test_an_answer_that_was_lost_is_given_again_to_the_same_worker(queue: TaskQueue) -> None:
    await queue.admit(sample_tasks(2), 10, TTL_S)
    await queue.announce("w1", sample_card(), ttl_s=TTL_S)
    claims = await queue.claim("w1", 2, block_s=0)
    await _leave_idle(queue, claims)
    again = await queue.reclaim("w1", idle_s=IDLE_S, count=2)
    assert [(claim.entry_id, claim.suspect) for claim in again] == [(claim.entry_id, False) for claim in claims]


async def test_attempts_at_a_suspect_outlive_its_workers(queue: TaskQueue) -> None:
    (task,) = sample_tasks(1)
    await queue.admit([task], 10, TTL_S)
    (claim,) = await queue.claim("w1", 1, block_s=0)
    assert [await queue.begin(claim) for _ in range(2)] == [1, 2]
    await _leave_idle(queue, [claim])
    (again,) = await queue.reclaim("w2", idle_s=IDLE_S, count=1)
    assert again.attempts == 2
    await queue.cancel(task.job_id, "enough", ttl_s=0.001)
    await wait_until(lambda: _is_gone(queue, task.job_id))
    assert await queue.begin(claim) == 0


async def _is_gone(queue: TaskQueue, job_id: str) -> bool:
    return await queue.job(job_id) is None


async def test_workers_that_are_gone_and_hold_nothing_are_forgotten(queue: TaskQueue, redis: Redis) -> None:
    await queue.admit(sample_tasks(3), 10, TTL_S)
    await queue.announce("alive", sample_card(), ttl_s=TTL_S)
    (done,) = await queue.claim("gone", 1, block_s=0)
    await queue.claim("alive", 1, block_s=0)
    await queue.claim("holder", 1, block_s=0)
    await queue.fail(done, "error", "broken")

    async def known() -> set[bytes]:
        await queue.reclaim("idle", idle_s=0.001, count=0)
        return {about["name"] for about in await redis.xinfo_consumers(ModelKeys(MODEL).tasks, WORKER_GROUP)}

    await wait_until(lambda: _are(known, {b"alive", b"holder"}))
    assert await queue.depth() == (0, 2)


async def _are(names: Callable[[], Awaitable[set[bytes]]], expected: set[bytes]) -> bool:
    return await names() == expected
