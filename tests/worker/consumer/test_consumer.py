"""Claims, results, capacity and shutdown against a real Redis, with the engine on its own thread."""

import hashlib
import io
import json
import time

import numpy as np
import pytest
from PIL import Image
from redis.asyncio import Redis

from jobs.queue.pictures.sources import Source
from jobs.settings import WorkerSettings
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue
from tests.worker.pictures.sources import drawn, from_picture, square_mask
from tests.worker.running_worker import RunningWorker, job, running, settled
from tests.worker.tasks import pictures
from worker.engine.engine import Engine
from worker.model_folder.loading import LoadedModel
from worker.startup import model_card


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


@pytest.mark.parametrize("strength", [0.0, 0.5])
async def test_a_picture_comes_with_its_task_or_the_task_fails_with_the_reason(
    redis: Redis, tiny_model: LoadedModel, strength: float
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    (task, files), (lost, _) = (from_picture(pixels, strength, square_mask(), job_id=name) for name in ("job", "lost"))
    expected = drawn(Engine(tiny_model, 4), {"it": (task, files)})["it"]
    async with running(redis, tiny_model) as worker:
        await worker.queue.admit([task], 100, 600, inputs=Source(files, strength).by_address)
        state = await settled(worker.queue, "job")
        await worker.queue.admit([lost], 100, 600)
        failed = await settled(worker.queue, "lost")
    data = await worker.queue.image(state.results[0].sha256, "png")
    assert data is not None
    made = Image.open(io.BytesIO(data))
    assert np.array_equal(np.asarray(made), expected.pixels)
    assert task.source is not None
    assert json.loads(made.text["fourstep"])["image"] == task.source.image
    assert failed.failures[0].detail.endswith("the picture that the call brought has expired")


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


async def _held(queue: TaskQueue, count: int) -> bool:
    return await queue.depth() == (10, count)


async def test_a_failing_device_thread_ends_the_worker(redis: Redis, tiny_model: LoadedModel) -> None:
    worker = RunningWorker(redis, tiny_model)
    await wait_until(worker.queue.workers)

    def broken() -> bool:
        raise RuntimeError("the device is gone")

    worker.engine.advance = broken  # type: ignore[method-assign, assignment]
    await worker.queue.admit(job(1), 100, 600)
    with pytest.raises(ExceptionGroup) as caught:
        await worker.ended()
    assert "the device is gone" in str(caught.value.exceptions[0])


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
