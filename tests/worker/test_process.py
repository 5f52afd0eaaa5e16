"""The worker as its own process: it starts, serves, reports, stops; or says in one line why not."""

import asyncio
import io
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from redis.asyncio import Redis

from jobs.queue import TaskQueue
from tests import tiny_pipelines, tiny_sdxl_pipelines
from tests.waiting import wait_until
from tests.worker.tasks import image_task
from worker.engine import Engine
from worker.generate import generate
from worker.model_folder import ServedModel, load


async def _start(**settings: object) -> Process:
    variables = {f"FOURSTEP_{name.upper()}": str(value) for name, value in settings.items()}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fourstep", "worker", env=os.environ | variables, stderr=PIPE
    )


async def test_a_worker_serves_reports_and_stops_in_time(
    redis: Redis, redis_url: str, tiny_folder: Path, tiny_model: ServedModel, free_port: Callable[[], int]
) -> None:
    port = free_port()
    process = await _start(model=tiny_folder, redis_url=redis_url, metrics_port=port, max_batch=2, dtype="float32")
    queue = TaskQueue(redis, "tiny-student")
    try:
        await wait_until(queue.workers, timeout_s=90)
        tasks = [image_task("a red cat", seed=i, index=i, mode="strict") for i in range(400)]
        await queue.admit(tasks, 500, 60)
        await wait_until(lambda: _done(queue, 4), timeout_s=30)
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        process.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert time.monotonic() - signalled < 8
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert 'fourstep_stage_duration_seconds_count{stage="denoise_step"}' in metrics
    assert 'model="tiny-student"' in metrics
    state = await queue.job("job")
    assert state is not None
    assert 4 <= len(state.results) < 400
    assert state.failures == []
    assert await queue.depth() == (400 - len(state.results), 0)
    assert await queue.workers() == []
    await _same_pixels_here(queue, tiny_model)


async def test_a_worker_serves_stable_diffusion_xl(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    folder = tiny_sdxl_pipelines.save(tmp_path / "tiny-sdxl")
    tiny_sdxl_pipelines.contract(sampler="re-noise").save(folder)
    process = await _start(model=folder, redis_url=redis_url, metrics_port=0, max_batch=2, dtype="float32")
    queue = TaskQueue(redis, "tiny-sdxl")
    try:
        await wait_until(queue.workers, timeout_s=90)
        tasks = [image_task("a red cat", seed=i, index=i, mode="strict") for i in range(4)]
        await queue.admit(tasks, 500, 60)
        await wait_until(lambda: _done(queue, 4), timeout_s=30)
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)
    await _same_pixels_here(queue, load(str(folder), device="cpu", dtype="float32"))


async def _done(queue: TaskQueue, count: int) -> bool:
    state = await queue.job("job")
    return state is not None and len(state.results) >= count


async def _same_pixels_here(queue: TaskQueue, model: ServedModel) -> None:
    """Strict images from another process are those that an engine in this one makes."""
    state = await queue.job("job")
    assert state is not None
    files = await queue.images(state.results[:4])
    served = [np.asarray(Image.open(io.BytesIO(data))) for data in files if data is not None]
    here = generate(Engine(model, max_batch=2), ["a red cat"] * 4, range(4), mode="strict")
    assert np.array_equal(np.stack(served), here)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": "/nowhere", "redis_url": "redis://127.0.0.1:1/0"}, "model: /nowhere"),
        ({"model": "spoilt", "redis_url": "redis://127.0.0.1:1/0"}, "family: "),
        ({"redis_url": "redis://127.0.0.1:1/0", "device": "cpu", "cuda_graphs": True}, "FOURSTEP_CUDA_GRAPHS"),
        ({}, "FOURSTEP_REDIS_URL"),
        ({"redis_url": "redis://127.0.0.1:1/0", "max_bach": 4}, "FOURSTEP_MAX_BATCH"),
    ],
)
async def test_a_worker_that_cannot_start_says_why_in_one_line(
    settings: dict[str, object], reason: str, tmp_path: Path
) -> None:
    if settings.get("model") == "spoilt":
        settings = settings | {"model": tiny_pipelines.save(tmp_path, family="sdxl")}
    process = await _start(metrics_port=0, **settings)
    _, error = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 2
    lines = [line for line in error.decode().splitlines() if line.startswith("fourstep worker: ")]
    assert len(lines) == 1
    assert reason in lines[0]
    assert "Traceback" not in error.decode()
