"""Pictures that calls bring lie beside the queue by their hash, for as long as a job needs them."""

from redis.asyncio import Redis

from jobs.models import ImageTask
from jobs.queue.claims import SourceFiles
from jobs.queue.keys import ModelKeys
from jobs.queue.pictures.sources import Source
from jobs.testing.samples import MODEL, sample_result, sample_tasks
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


async def test_those_of_a_failed_job_are_kept_as_long_as_the_job(queue: TaskQueue, redis: Redis) -> None:
    (task,) = await _admit(queue)
    assert max(await _lives(redis)) > 500_000
    await queue.cancel(task.job_id, "no longer wanted", ttl_s=9)
    assert 0 < max(await _lives(redis)) <= 9000


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
