"""Clocks that differ: times in the queue are those of Redis, and each worker reads them by its own clock."""

import json

import pytest
from redis.asyncio import Redis

from jobs.clock import steady_time
from jobs.queue.keys import ModelKeys
from jobs.testing.redis_servers import seconds
from jobs.testing.samples import MODEL, sample_tasks
from tests.task_queue import TaskQueue


@pytest.mark.parametrize("ahead_s", [-600.0, 600.0])
async def test_a_job_is_created_by_the_clock_of_redis(redis: Redis, ahead_s: float) -> None:
    queue = TaskQueue(redis, MODEL)
    (task,) = sample_tasks(1)
    created = task.created + ahead_s
    before = await seconds(redis)
    admission = await queue.admit([task.model_copy(update={"created": created, "deadline": created + 20})], 10, 60)
    ((_, fields),) = await redis.xrange(ModelKeys(MODEL).tasks)
    record, state = json.loads(fields[b"task"]), await queue.job(task.job_id)
    assert state is not None
    assert before <= record["created"] <= await seconds(redis)
    assert record["created"] == state.created == admission.created
    assert record["deadline"] - record["created"] == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize("ahead_s", [-600.0, 600.0])
async def test_a_worker_reads_times_by_its_own_clock(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    queue = TaskQueue(redis, MODEL)
    (task,) = sample_tasks(1)
    await queue.admit([task.model_copy(update={"deadline": task.created + 20})], 10, 60)
    created = (await queue.job(task.job_id)).created  # type: ignore[union-attr]
    monkeypatch.setattr("jobs.queue.worker_queue.steady_time", lambda: steady_time() + ahead_s)
    shift = steady_time() - await seconds(redis) + ahead_s
    (claim,) = await queue.claim("w1", 1, block_s=0)
    assert claim.task.created - created == pytest.approx(shift, abs=60)
    assert claim.task.patience_s == pytest.approx(20, abs=1e-3)
