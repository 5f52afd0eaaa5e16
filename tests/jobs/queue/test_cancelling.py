"""Cancelling a job, also while its images are made, handed back or stored."""

import asyncio

from redis.asyncio import Redis

from jobs.testing.samples import sample_result, sample_tasks
from tests.jobs.queue.claiming import TTL_S, admit_and_claim
from tests.task_queue import TaskQueue


async def test_cancelling_settles_what_waits_and_what_runs_and_keeps_what_is_made(queue: TaskQueue) -> None:
    tasks = sample_tasks(4)
    await queue.admit(tasks, 10, TTL_S)
    made, running = await queue.claim("w1", 2, block_s=0)
    await queue.commit(made, sample_result(made.task, b"made"), b"made", TTL_S)
    assert await queue.cancel(tasks[0].job_id, "no longer wanted") == 3
    assert await queue.depth() == (0, 0)
    assert not await queue.commit(running, sample_result(running.task, b"late"), b"late", TTL_S)
    assert await queue.renew("w1", [made, running]) == [made, running]
    state = await queue.job(tasks[0].job_id)
    assert state is not None
    assert (state.status, [result.index for result in state.results]) == ("cancelled", [0])
    assert [failure.detail for failure in state.failures] == ["no longer wanted"] * 3
    assert await queue.cancel(tasks[0].job_id, "again") == 0
    assert await queue.cancel("0" * 32, "unknown") is None


async def test_cancelling_reaches_images_that_were_handed_back(queue: TaskQueue) -> None:
    claims = await admit_and_claim(queue, 2)
    await queue.requeue(claims)
    assert await queue.cancel(claims[0].task.job_id, "no longer wanted") == 2
    assert await queue.depth() == (0, 0)
    assert await queue.claim("w1", 2, block_s=0) == []


async def test_a_commit_and_a_cancellation_at_once_settle_each_image_once(queue: TaskQueue) -> None:
    claims = await admit_and_claim(queue, 20)
    commits = [queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S) for claim in claims]
    job_id = claims[0].task.job_id
    given_up, *made = await asyncio.gather(queue.cancel(job_id, "not wanted"), *commits)
    state = await queue.job(job_id)
    assert state is not None
    assert (len(state.results), len(state.failures)) == (sum(made), given_up)
    assert sum(made) + (given_up or 0) == 20
    assert await queue.depth() == (0, 0)


async def test_cancelling_works_while_redis_has_no_memory_left(queue: TaskQueue, redis: Redis) -> None:
    tasks = sample_tasks(3)
    await queue.admit(tasks, 10, TTL_S)
    await redis.config_set("maxmemory", 1)
    try:
        assert await queue.cancel(tasks[0].job_id, "no longer wanted") == 3
    finally:
        await redis.config_set("maxmemory", 0)
    assert await queue.depth() == (0, 0)
