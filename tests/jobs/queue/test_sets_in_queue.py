"""A diverse set is one entry of the stream and as many images as it answers with."""

import pytest
from redis.asyncio import Redis

from jobs.models import ImageTask, JobState
from jobs.queue.claims import Claim, Settled
from jobs.queue.dead_letters import DeadLetters
from jobs.testing.samples import MODEL, sample_results, sample_set, sample_tasks
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue

TTL_S = 60.0


@pytest.fixture
def queue(redis: Redis) -> TaskQueue:
    return TaskQueue(redis, MODEL)


async def claimed(queue: TaskQueue, images: int = 4) -> Claim:
    assert (await queue.admit([sample_set(images, 4 * images)], 100, TTL_S)).ok
    (claim,) = await queue.claim("w1", 8, block_s=0)
    return claim


async def commit(queue: TaskQueue, claim: Claim) -> Settled:
    results = sample_results(claim.task, b"pixels")
    return await queue.commit_all(claim, results, [b"pixels"] * len(results), TTL_S)


async def state_of(queue: TaskQueue, task: ImageTask) -> JobState:
    state = await queue.job(task.job_id)
    assert state is not None
    return state


async def test_its_images_count_for_the_bound_and_the_depth(queue: TaskQueue) -> None:
    assert (await queue.admit([sample_set(4, 16)], 10, TTL_S)).ok
    assert (await queue.admit(sample_tasks(3), 10, TTL_S)).ok
    refused = await queue.admit([sample_set(4, 4)], 10, TTL_S)
    assert (refused.outcome, refused.queued_images) == ("full", 7)
    assert (await queue.admit([sample_set(3, 64)], 10, TTL_S)).queued_images == 10
    assert await queue.depth() == (10, 0)
    await queue.claim("w1", 1, block_s=0)
    assert await queue.depth() == (6, 4)
    assert (await queue.admit([sample_set(4, 16)], 10, TTL_S)).ok


async def test_it_is_committed_whole_and_once(queue: TaskQueue, redis: Redis) -> None:
    claim = await claimed(queue)
    await wait_until(lambda: queue.reclaim("w2", idle_s=0.005, count=1))
    assert await commit(queue, claim) == Settled(4, completed=4)
    assert await commit(queue, claim) == Settled(0, completed=0)
    assert not await queue.fail(claim, "error", "late")
    state = await state_of(queue, claim.task)
    assert (state.status, state.total) == ("completed", 4)
    assert [(result.index, result.seed) for result in state.results] == [(0, 19), (1, 20), (2, 21), (3, 22)]
    assert await queue.images(state.results) == [b"pixels"] * 4
    assert await queue.depth() == (0, 0)
    assert not await redis.exists("fourstep:{emoji-test}:sets")


async def test_it_fails_whole_and_once(queue: TaskQueue) -> None:
    claim = await claimed(queue)
    assert await queue.fail(claim, "expired", "too late")
    assert await commit(queue, claim) == Settled(0, completed=0)
    state = await state_of(queue, claim.task)
    assert (state.status, [failure.index for failure in state.failures]) == ("expired", [0, 1, 2, 3])
    assert await queue.depth() == (0, 0)


@pytest.mark.parametrize("running", [False, True])
async def test_it_is_cancelled_whole_waiting_or_running(queue: TaskQueue, running: bool) -> None:
    task = sample_set(4, 16)
    await queue.admit([task], 100, TTL_S)
    claims = await queue.claim("w1", 8, block_s=0) if running else []
    assert await queue.cancel(task.job_id, "not wanted") == 4
    assert (await state_of(queue, task)).status == "cancelled"
    assert await queue.depth() == (0, 0)
    assert await queue.claim("w1", 8, block_s=0) == []
    for claim in claims:
        assert await queue.renew("w1", [claim]) == [claim]
        assert await commit(queue, claim) == Settled(0, completed=0)


async def test_handed_back_it_waits_with_all_its_images(queue: TaskQueue) -> None:
    claim = await claimed(queue)
    await queue.requeue([claim])
    assert await queue.depth() == (4, 0)
    assert await queue.cancel(claim.task.job_id, "not wanted") == 4
    assert await queue.depth() == (0, 0)


async def test_taken_over_it_is_still_held(queue: TaskQueue) -> None:
    claim = await claimed(queue)
    taken: list[Claim] = []

    async def taken_over() -> list[Claim]:
        return taken.extend(await queue.reclaim("w2", idle_s=0.005, count=8)) or taken

    await wait_until(taken_over)
    assert await queue.depth() == (0, 4)
    assert await commit(queue, taken[0]) == Settled(4, completed=4)
    assert await commit(queue, claim) == Settled(0, completed=0)


async def test_as_a_dead_letter_it_can_be_replayed(queue: TaskQueue, redis: Redis) -> None:
    claim = await claimed(queue)
    assert await queue.bury(claim, "nobody survived it", TTL_S)
    assert [failure.index for failure in (await state_of(queue, claim.task)).failures] == [0, 1, 2, 3]
    (letter,) = await DeadLetters(redis, MODEL).read()
    assert (letter.task, letter.failure.index) == (claim.task, 0)
    assert (await queue.admit([letter.as_new_job(0)], 10, TTL_S)).queued_images == 4


async def test_settled_by_who_had_it_before_it_is_not_made_again(queue: TaskQueue) -> None:
    """The first worker was silent, another one took the set over and handed it back, then the first one answers."""
    claim = await claimed(queue)
    await queue.requeue([claim])
    assert await commit(queue, claim) == Settled(4, completed=4)
    assert await queue.depth() == (0, 0)
    assert await queue.claim("w2", 8, block_s=0) == []
