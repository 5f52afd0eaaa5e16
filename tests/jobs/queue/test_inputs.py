"""Pictures that calls bring lie beside the queue by their hash, for as long as a job needs them."""

import pytest
from redis.asyncio import Redis

from jobs.models import ImageTask
from jobs.queue.claims import SourceFiles
from jobs.queue.keys import ModelKeys
from jobs.queue.pictures.sources import Source
from jobs.testing.samples import MODEL, sample_result, sample_tasks
from jobs.testing.waiting import wait_until
from tests.jobs.queue.claiming import TTL_S
from tests.task_queue import TaskQueue

SOURCE = Source(SourceFiles(b"a picture", b"a mask"), strength=0.5)


async def _admit(queue: TaskQueue, count: int = 1) -> list[ImageTask]:
    tasks = [task.model_copy(update={"source": SOURCE.picture}) for task in sample_tasks(count)]
    assert (await queue.admit(tasks, 10, TTL_S, inputs=SOURCE.by_address)).ok
    return tasks


async def _lives(redis: Redis) -> set[int]:
    """The milliseconds that each of the pictures will be kept."""
    return {await redis.pttl(name) for name in await redis.keys(ModelKeys(MODEL).input("*"))}


async def test_a_claim_brings_the_files_which_tasks_name_by_hash_alone(queue: TaskQueue, redis: Redis) -> None:
    await _admit(queue, 2)
    for claim in await queue.claim("w1", 2, block_s=0):
        assert claim.source == SOURCE.files
        assert claim.task.source == SOURCE.picture
    assert len(await redis.keys(ModelKeys(MODEL).input("*"))) == 2


async def test_they_are_kept_until_the_last_job_that_needs_them_has_ended(queue: TaskQueue, redis: Redis) -> None:
    for _ in range(2):
        await _admit(queue)
    claims = await queue.claim("w1", 2, block_s=0)
    for claim, kept in zip(claims, (True, False), strict=True):
        await queue.commit(claim, sample_result(claim.task, b"made"), b"made", TTL_S)
        assert bool(await _lives(redis)) is kept


async def test_those_of_a_dead_letter_are_kept_as_long_as_its_job(queue: TaskQueue, redis: Redis) -> None:
    await _admit(queue, 2)
    await _admit(queue)
    buried, *others = await queue.claim("w1", 3, block_s=0)
    await queue.bury(buried, "no worker outlived it", TTL_S)
    for claim in others:
        assert max(await _lives(redis)) > 500_000
        await queue.commit(claim, sample_result(claim.task, b"made"), b"made", ttl_s=9)
    assert 0 < max(await _lives(redis)) <= 9000


@pytest.mark.parametrize("end", ["cancelled", "expired", "failed"])
async def test_those_of_a_job_that_made_nothing_go_with_its_end(queue: TaskQueue, redis: Redis, end: str) -> None:
    made = [task.model_copy(update={"source": SOURCE.picture}) for task in sample_tasks(1)]
    tasks = [task.model_copy(update={"deadline": task.created + 0.001}) for task in made] if end == "expired" else made
    assert (await queue.admit(tasks, 10, TTL_S, inputs=SOURCE.by_address)).ok
    assert await _lives(redis)
    if end == "cancelled":
        await queue.cancel(tasks[0].job_id, "the client's connection was closed")
    elif end == "failed":
        (claim,) = await queue.claim("w1", 1, block_s=0)
        await queue.fail(claim, "refused", "the safety model takes it for dark")
    else:

        async def expired() -> bool:
            return await queue.expire_overdue(TTL_S) == 1

        await wait_until(expired)
    assert await _lives(redis) == set()


async def test_a_refused_job_leaves_none(queue: TaskQueue, redis: Redis) -> None:
    tasks = [task.model_copy(update={"source": SOURCE.picture}) for task in sample_tasks(3)]
    assert (await queue.admit(tasks, 2, TTL_S, inputs=SOURCE.by_address)).outcome == "full"
    assert await _lives(redis) == set()


async def test_a_job_sent_again_after_a_lost_answer_counts_once(queue: TaskQueue, redis: Redis) -> None:
    tasks = await _admit(queue)
    assert (await queue.admit(tasks, 10, TTL_S, inputs=SOURCE.by_address)).ok
    (claim,) = await queue.claim("w1", 2, block_s=0)
    await queue.commit(claim, sample_result(claim.task, b"made"), b"made", TTL_S)
    assert await _lives(redis) == set()


async def test_an_expired_picture_is_none(queue: TaskQueue, redis: Redis) -> None:
    await _admit(queue)
    await redis.delete(ModelKeys(MODEL).input(SOURCE.picture.image))
    (claim,) = await queue.claim("w1", 1, block_s=0)
    assert claim.source is None
