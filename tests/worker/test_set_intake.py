"""Diverse sets and diversity scores from the queue to the result, against a real Redis."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from jobs.diversity import diversity_score
from jobs.models import DiverseSet, ImageTask
from jobs.queue import TaskQueue
from tests.waiting import wait_until
from tests.worker.tasks import image_task, pictures
from tests.worker.test_intake import LEASE_S, RunningWorker, _job, _settled, _slow_steps, _worker
from worker.engine import Engine
from worker.model_folder import ServedModel, load


def _set(images: int = 3, candidates: int = 9, job_id: str = "set", **changes: object) -> ImageTask:
    select = DiverseSet(images=images, candidates=candidates)
    return image_task("sun", seed=40, job_id=job_id, select=select, **changes)


def _scores(*workers: RunningWorker) -> tuple[float, float]:
    """(how many, their sum) over all workers' histograms."""
    names = ("fourstep_diversity_score_count", "fourstep_diversity_score_sum")
    count, total = (sum(worker.count(name) for worker in workers) for name in names)
    return count, total


def _layouts(state_results: Sequence) -> list[str]:
    return [result.layout for result in state_results]


async def test_a_set_is_made_committed_and_scored(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model) as worker:
        await worker.queue.admit([_set(mode="strict")], 100, 60)
        state = await _settled(worker.queue, "set")
        await wait_until(lambda: _scores(worker)[0] == 1)
        assert worker.count("fourstep_images_total", outcome="ok") == 3
        assert worker.count("fourstep_queue_time_seconds_count") == 3
    assert (state.status, state.total, [result.index for result in state.results]) == ("completed", 3, [0, 1, 2])
    assert _scores(worker)[1] == pytest.approx(diversity_score(_layouts(state.results)))
    seeds = [result.seed for result in state.results]
    assert len(set(seeds)) == 3
    alone = pictures(Engine(tiny_model, 4), [image_task("sun", seed, mode="strict") for seed in seeds])
    files = await worker.queue.images(state.results)
    assert len(set(files)) == len(alone) == 3
    assert await worker.queue.depth() == (0, 0)


async def test_a_silent_workers_set_is_taken_over_whole(redis: Redis, tiny_model: ServedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit([_set()], 100, 60)
    assert len(await queue.claim("silent", 3, 0)) == 1
    async with _worker(redis, tiny_model) as worker:
        state = await _settled(queue, "set")
        await wait_until(lambda: _scores(worker)[0] == 1)
        assert worker.count("fourstep_redeliveries_total") == 1
    assert (state.status, len(state.results)) == ("completed", 3)


async def test_a_cancelled_set_leaves_the_engine_whole(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model, max_batch=2) as worker:
        _slow_steps(worker.engine)
        await worker.queue.admit([_set()], 100, 60)
        await wait_until(lambda: worker.engine.busy)
        assert await worker.queue.cancel("set", "no longer wanted") == 3
        await wait_until(lambda: worker.count("fourstep_images_total", outcome="cancelled") == 3)
        assert not worker.engine.busy
        await worker.queue.admit(_job(2, "next"), 100, 60)
        assert (await _settled(worker.queue, "next")).status == "completed"
    assert _scores(worker)[0] == 1


async def test_a_set_that_comes_too_late_expires_with_all_its_images(redis: Redis, tiny_model: ServedModel) -> None:
    async with _worker(redis, tiny_model) as worker:
        await worker.queue.admit([_set(deadline=1.0)], 100, 60)
        assert (await _settled(worker.queue, "set")).status == "expired"
        await wait_until(lambda: worker.count("fourstep_images_total", outcome="expired") == 3)


async def test_a_job_is_scored_once_whoever_made_its_images(redis: Redis, tiny_folder: Path) -> None:
    # A model for each, as in processes of their own: a tokenizer keeps its padding as state, and threads race.
    models = [load(str(tiny_folder), device="cpu", dtype="float32") for _ in range(2)]
    async with _worker(redis, models[0], max_batch=1) as first, _worker(redis, models[1], max_batch=1) as second:
        for worker in (first, second):
            _slow_steps(worker.engine)
        await first.queue.admit(_job(6), 100, 60)
        await first.queue.admit(_job(1, "single"), 100, 60)
        state = await _settled(first.queue, "job")
        await _settled(first.queue, "single")
        made = [worker.count("fourstep_images_total", outcome="ok") for worker in (first, second)]
        await asyncio.sleep(LEASE_S / 3)
    assert min(made) > 0
    assert _scores(first, second) == (1, pytest.approx(diversity_score(_layouts(state.results))))
