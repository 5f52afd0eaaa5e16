"""Diverse sets and diversity scores from the queue to the result, against a real Redis."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from jobs.diversity import diversity_score
from jobs.models import DiverseSet, ImageTask
from jobs.settings import WorkerSettings
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue
from tests.worker.running_worker import LEASE_S, RunningWorker, hears_cancellations, job, running, settled
from tests.worker.tasks import image_task, pictures
from worker.engine.engine import Engine
from worker.model_folder.loading import LoadedModel, load
from worker.startup import model_card


def _set(images: int = 3, candidates: int = 9, job_id: str = "set", **changes: object) -> ImageTask:
    select = DiverseSet(images=images, candidates=candidates)
    return image_task("sun", seed=40, job_id=job_id, select=select, **changes)


def _scores(*workers: RunningWorker) -> tuple[float, float]:
    """The number of scores and their sum, over all workers' histograms."""
    names = ("fourstep_diversity_score_count", "fourstep_diversity_score_sum")
    count, total = (sum(worker.count(name) for worker in workers) for name in names)
    return count, total


def _layouts(state_results: Sequence) -> list[str]:
    return [result.layout for result in state_results]


@pytest.mark.slow
async def test_a_set_is_made_committed_and_scored(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model) as worker:
        await worker.queue.admit([_set(mode="strict")], 100, 600)
        state = await settled(worker.queue, "set")
        await wait_until(lambda: _scores(worker)[0] == 1)
        assert worker.images("ok") == 3
        assert worker.count("fourstep_queue_time_seconds_count") == 3
    assert (state.status, state.total, [result.index for result in state.results]) == ("completed", 3, [0, 1, 2])
    assert _scores(worker)[1] == pytest.approx(diversity_score(_layouts(state.results)))
    seeds = [result.seed for result in state.results]
    assert len(set(seeds)) == 3
    alone = pictures(Engine(tiny_model, 4), [image_task("sun", seed, mode="strict") for seed in seeds])
    files = await worker.queue.images(state.results)
    assert len(set(files)) == len(alone) == 3
    assert await worker.queue.depth() == (0, 0)


@pytest.mark.slow
async def test_a_silent_workers_set_is_taken_over_whole(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit([_set()], 100, 600)
    assert len(await queue.claim("silent", 3, 0)) == 1
    async with running(redis, tiny_model, lease_s=LEASE_S) as worker:
        state = await settled(queue, "set")
        await wait_until(lambda: _scores(worker)[0] == 1)
        assert {claim.task.job_id for claim in worker.taken_over} == {"set"}
        assert worker.count("fourstep_redeliveries_total") == len(worker.redelivered)
    assert (state.status, len(state.results)) == ("completed", 3)


@pytest.mark.slow
async def test_a_cancelled_set_leaves_the_engine_whole(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model, max_batch=2, gated=True) as worker:
        await hears_cancellations(redis, worker)
        await worker.queue.admit([_set()], 100, 600)
        await wait_until(lambda: worker.engine.busy)
        assert await worker.queue.cancel("set", "no longer wanted") == 3
        await wait_until(lambda: "withdraw" in worker.device.asked)
        await worker.gate.take()
        await wait_until(lambda: worker.images("cancelled") == 3)
        assert not worker.engine.busy
        worker.gate.open()
        await worker.queue.admit(job(2, "next"), 100, 600)
        assert (await settled(worker.queue, "next")).status == "completed"
    assert _scores(worker)[0] == 1


@pytest.mark.slow
async def test_a_set_that_comes_too_late_expires_with_all_its_images(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model) as worker:
        await worker.queue.admit([_set(deadline=1.0)], 100, 600)
        assert (await settled(worker.queue, "set")).status == "expired"
        await wait_until(lambda: worker.images("expired") == 3)


@pytest.mark.slow
async def test_a_job_is_scored_once_whoever_made_its_images(redis: Redis, tiny_folder: Path) -> None:
    # A model for each, as in processes of their own: a tokenizer keeps its padding as state, and threads race.
    models = [load(str(tiny_folder), device="cpu", dtype="float32") for _ in range(2)]
    card = model_card(Engine(models[0], 1), WorkerSettings())
    for worker_id in ("w1", "w2"):  # known to each other when they look: none claims like the only one
        await TaskQueue(redis, card.name).announce(worker_id, card, 600)
    gated = {"max_batch": 1, "gated": True}
    async with (
        running(redis, models[0], worker_id="w1", **gated) as first,
        running(redis, models[1], worker_id="w2", **gated) as second,
    ):
        workers = first, second
        await first.queue.admit(job(6), 100, 600)
        await first.queue.admit(job(1, "single"), 100, 600)
        await wait_until(lambda: all(worker.engine.busy for worker in workers))
        for worker in workers:
            worker.gate.open()
        state = await settled(first.queue, "job")
        await wait_until(lambda: sum(worker.images("ok") for worker in workers) == 7)  # each scored by then, if at all
        assert min(worker.images("ok") for worker in workers) > 0
    assert _scores(first, second) == (1, pytest.approx(diversity_score(_layouts(state.results))))
