"""The queue of one model: admission, claims, results and what is kept for how long."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from jobs.models import ImageTask
from jobs.queue.admission import IdempotencyKey
from jobs.queue.keys import ModelKeys
from jobs.queue.model_registry import known_models
from jobs.testing.samples import MODEL, sample_card, sample_result, sample_tasks
from jobs.testing.waiting import outcome, wait_until
from tests.jobs.queue.claiming import TTL_S, admit_and_claim
from tests.task_queue import TaskQueue


async def test_admission_counts_images_and_takes_a_job_whole_or_not_at_all(queue: TaskQueue) -> None:
    first = await queue.admit(sample_tasks(3), max_queued_images=5, ttl_s=TTL_S)
    refused = await queue.admit(sample_tasks(3), max_queued_images=5, ttl_s=TTL_S)
    fitting = await queue.admit(sample_tasks(2), max_queued_images=5, ttl_s=TTL_S)
    assert (first.ok, refused.ok, fitting.ok) == (True, False, True)
    assert (refused.queued_images, fitting.queued_images) == (3, 5)
    assert await queue.depth() == (5, 0)


async def test_claimed_images_make_room_in_the_queue(queue: TaskQueue) -> None:
    await admit_and_claim(queue, 4)
    assert await queue.depth() == (0, 4)
    assert (await queue.admit(sample_tasks(5), max_queued_images=5, ttl_s=TTL_S)).ok


async def test_concurrent_admissions_never_exceed_the_bound(queue: TaskQueue) -> None:
    admissions = await asyncio.gather(*(queue.admit(sample_tasks(3), 20, TTL_S) for _ in range(30)))
    assert sum(admission.ok for admission in admissions) == 6
    assert await queue.depth() == (18, 0)


async def test_admitting_the_same_job_again_does_not_double_it(queue: TaskQueue) -> None:
    tasks = sample_tasks(2)
    assert (await queue.admit(tasks, 10, TTL_S)).ok
    assert (await queue.admit(tasks, 10, TTL_S)).ok
    assert await queue.depth() == (2, 0)


async def test_a_job_is_kept_whole_until_it_ends_and_then_for_its_ttl(queue: TaskQueue, redis: Redis) -> None:
    deadline = time.time() + 10 * TTL_S
    tasks = [task.model_copy(update={"deadline": deadline}) for task in sample_tasks(2)]
    keys = ModelKeys(MODEL)
    await queue.admit(tasks, 10, TTL_S, idempotency_key=IdempotencyKey("someone", "key", "ab"))
    left = [keys.job(tasks[0].job_id), keys.idempotency("someone", "key")]
    results = []
    for claim, data in zip(await queue.claim("w1", 2, block_s=0), (b"first", b"second"), strict=True):
        assert min([await redis.pttl(name) for name in left]) > 2000 * TTL_S
        results.append(sample_result(claim.task, data))
        await queue.commit(claim, results[-1], data, TTL_S)
        left.append(keys.image(results[-1].sha256, results[-1].format))
    assert all([0 < await redis.pttl(name) <= 1000 * TTL_S for name in left])
    assert await queue.images(results) == [b"first", b"second"]


async def test_a_cancelled_job_is_kept_for_its_ttl(queue: TaskQueue, redis: Redis) -> None:
    tasks = [task.model_copy(update={"deadline": time.time() + 10 * TTL_S}) for task in sample_tasks(2)]
    await queue.admit(tasks, 10, TTL_S)
    claim, _ = await queue.claim("w1", 2, block_s=0)
    result = sample_result(claim.task, b"first")
    await queue.commit(claim, result, b"first", TTL_S)
    await queue.cancel(tasks[0].job_id, "enough", ttl_s=TTL_S)
    for name in (ModelKeys(MODEL).job(tasks[0].job_id), ModelKeys(MODEL).image(result.sha256, result.format)):
        assert 0 < await redis.pttl(name) <= 1000 * TTL_S


async def test_claims_carry_the_tasks_in_order(queue: TaskQueue) -> None:
    tasks = sample_tasks(3, prompt="héart ❤ \x00 \n")
    await queue.admit(tasks, 10, TTL_S)
    for worker_id, expected in (("w1", tasks[:2]), ("w2", tasks[2:])):
        claimed = [claim.task for claim in await queue.claim(worker_id, 2, block_s=0)]
        # Redis sets the time of creation.
        assert [task.model_copy(update={"created": tasks[0].created}) for task in claimed] == [
            task.model_copy(update={"created": tasks[0].created}) for task in expected
        ]
    assert await queue.claim("w1", 2, block_s=0) == []


async def test_a_waiting_claim_wakes_when_a_job_arrives(patient_redis: Redis) -> None:
    queue = TaskQueue(patient_redis, MODEL)
    waiting = asyncio.create_task(queue.claim("w1", 4, block_s=1000))

    async def blocked() -> bool:
        return (await patient_redis.info("clients"))["blocked_clients"] == 1

    await wait_until(blocked)
    await queue.admit(sample_tasks(1), 10, TTL_S)
    assert len(await outcome(waiting)) == 1


async def test_claim_refuses_to_block_longer_than_the_socket_waits(queue: TaskQueue) -> None:
    with pytest.raises(ValueError, match="block_s"):
        await queue.claim("w1", 1, block_s=30)


async def test_a_committed_image_is_stored_once_acknowledged_and_readable(queue: TaskQueue, redis: Redis) -> None:
    (claim,) = await admit_and_claim(queue, 1)
    result = sample_result(claim.task, b"pixels")
    assert await queue.commit(claim, result, b"pixels", TTL_S)
    state = await queue.job(claim.task.job_id)
    assert state is not None
    assert (state.status, state.results) == ("completed", [result])
    assert await queue.images(state.results) == [b"pixels"]
    assert await queue.depth() == (0, 0)
    assert await redis.xlen(ModelKeys(MODEL).tasks) == 0


async def test_a_result_for_a_forgotten_job_is_dropped_and_leaves_nothing(queue: TaskQueue, redis: Redis) -> None:
    (claim,) = await admit_and_claim(queue, 1)
    await redis.delete(ModelKeys(MODEL).job(claim.task.job_id))
    assert not await queue.commit(claim, sample_result(claim.task, b"late"), b"late", TTL_S)
    assert await queue.job(claim.task.job_id) is None
    assert await redis.keys("*:image:*") == []
    assert await queue.depth() == (0, 0)


async def test_a_failed_image_settles_its_job(queue: TaskQueue) -> None:
    made, broken = await admit_and_claim(queue, 2)
    await queue.commit(made, sample_result(made.task, b"ok"), b"ok", TTL_S)
    assert await queue.fail(broken, "error", "out of memory")
    assert not await queue.fail(broken, "error", "said twice")
    assert not await queue.commit(broken, sample_result(broken.task, b"late"), b"late", TTL_S)
    state = await queue.job(made.task.job_id)
    assert state is not None
    assert (state.status, len(state.results)) == ("failed", 1)
    assert [(failure.index, failure.detail) for failure in state.failures] == [(1, "out of memory")]


@pytest.mark.parametrize("reason", ["expired", "cancelled"])
async def test_a_job_takes_the_status_of_its_failures(queue: TaskQueue, reason: str) -> None:
    (claim,) = await admit_and_claim(queue, 1)
    await queue.fail(claim, reason, "too late")
    state = await queue.job(claim.task.job_id)
    assert state is not None
    assert state.status == reason


async def test_a_job_runs_once_its_first_image_is_claimed(queue: TaskQueue) -> None:
    tasks = sample_tasks(2)
    await queue.admit(tasks, 10, TTL_S)
    assert await _status(queue, tasks) == "queued"
    await queue.claim("w1", 1, block_s=0)
    assert await _status(queue, tasks) == "running"


async def _status(queue: TaskQueue, tasks: list[ImageTask]) -> str:
    state = await queue.job(tasks[0].job_id)
    assert state is not None
    return state.status


async def test_everything_but_the_stream_and_the_lists_expires(queue: TaskQueue, redis: Redis) -> None:
    claims = await admit_and_claim(queue, 2)
    await queue.announce("w1", sample_card(), ttl_s=TTL_S)
    await queue.commit(claims[0], sample_result(claims[0].task, b"x"), b"x", TTL_S)
    await queue.fail(claims[1], "error", "broken")
    lasting = [key for key in await redis.keys("*") if await redis.ttl(key) == -1]
    keys = ModelKeys(MODEL)
    of_the_model = {keys.tasks, keys.workers, keys.since, keys.last_card, keys.usage}
    assert {key.decode() for key in lasting} == {*of_the_model, "fourstep:models"}


async def test_results_vanish_after_their_time(queue: TaskQueue) -> None:
    (claim,) = await admit_and_claim(queue, 1)
    result = sample_result(claim.task, b"brief")
    await queue.commit(claim, result, b"brief", ttl_s=0.05)

    async def gone() -> bool:
        return await queue.job(claim.task.job_id) is None and await queue.image(result.sha256, "png") is None

    await wait_until(gone)


async def test_a_worker_is_seen_while_its_lease_lasts_and_its_card_longer(queue: TaskQueue, redis: Redis) -> None:
    await queue.announce("w1", sample_card(), ttl_s=TTL_S)
    await queue.announce("w2", sample_card(), ttl_s=TTL_S)
    assert [lease.worker_id for lease in await queue.workers()] == ["w1", "w2"]
    assert 0 < await redis.pttl(ModelKeys(MODEL).worker("w1")) <= 1000 * TTL_S
    await redis.pexpire(ModelKeys(MODEL).worker("w1"), 1)

    async def only_w2() -> bool:
        return [lease.worker_id for lease in await queue.workers()] == ["w2"]

    await wait_until(only_w2)
    await queue.deregister("w2")
    assert await queue.workers() == []
    assert await queue.card() == sample_card()
    assert await known_models(redis) == [MODEL]


async def test_an_empty_redis_has_no_depth_no_card_and_no_lost_leases(queue: TaskQueue) -> None:
    assert await queue.depth() == (0, 0)
    assert await queue.card() is None
    assert await queue.reclaim("w1", idle_s=1, count=1) == []


async def test_claims_survive_a_redis_that_comes_back_empty(queue: TaskQueue, redis: Redis) -> None:
    await admit_and_claim(queue, 1)
    await redis.flushall()
    assert await queue.claim("w1", 1, block_s=0) == []
    assert len(await admit_and_claim(queue, 1)) == 1


async def test_models_do_not_share_anything(redis: Redis) -> None:
    one, other = TaskQueue(redis, "one"), TaskQueue(redis, "stabilityai/other-1.5")
    await one.admit(sample_tasks(2), 10, TTL_S)
    assert await other.depth() == (0, 0)
    assert await other.claim("w1", 5, block_s=0) == []
