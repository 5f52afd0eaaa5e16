"""The worker as its own process: it starts, serves, reports, stops; or says in one line why not."""

import asyncio
import io
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from redis.asyncio import Redis

from jobs.testing.waiting import outcome, wait_until
from tests.task_queue import TaskQueue
from tests.worker import held_worker
from tests.worker.tasks import image_task
from worker.engine.engine import Engine
from worker.generate import generate
from worker.model_folder.loading import LoadedModel, load
from worker.testing import tiny_pipelines, tiny_sdxl_pipelines


async def _start(*module: str, **settings: object) -> Process:
    variables = {f"FOURSTEP_{name.upper()}": str(value) for name, value in settings.items()}
    module = module or ("fourstep", "worker")
    return await asyncio.create_subprocess_exec(sys.executable, "-m", *module, env=os.environ | variables, stderr=PIPE)


async def _ended(process: Process) -> tuple[int, str]:
    """Wait for its end; return its exit code and standard error."""
    _, error = await outcome(process.communicate())
    assert process.returncode is not None
    return process.returncode, error.decode()


@pytest.mark.slow
async def test_a_worker_serves_reports_finishes_what_runs_and_hands_the_rest_back(
    redis: Redis, redis_url: str, tiny_folder: Path, tiny_model: LoadedModel, free_port: Callable[[], int]
) -> None:
    port = free_port()
    settings = {"model": tiny_folder, "redis_url": redis_url, "metrics_port": port, "max_batch": 2, "dtype": "float32"}
    settings |= {"cpu_runtime": "torch"}  # whose bits are known here
    process = await _start("tests.worker.held_worker", **settings)
    queue = TaskQueue(redis, "tiny-student")
    try:
        await wait_until(queue.workers)
        tasks = [image_task("a red cat", seed=i, index=i, mode="strict") for i in range(40)]
        await queue.admit(tasks, 500, 600)
        await wait_until(lambda: _done(queue, held_worker.IMAGES))
        async with httpx.AsyncClient(timeout=None) as client:
            metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        process.send_signal(signal.SIGTERM)
        code, error = await _ended(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert code == 0, error
    assert 'fourstep_stage_duration_seconds_count{stage="denoise_step"}' in metrics
    assert 'model="tiny-student"' in metrics
    state = await queue.job("job")
    assert state is not None
    assert held_worker.IMAGES < len(state.results) < 40
    assert state.failures == []
    assert await queue.depth() == (40 - len(state.results), 0)
    assert await queue.workers() == []
    await _same_pixels_here(queue, tiny_model)


@pytest.mark.slow
async def test_a_worker_serves_stable_diffusion_xl(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    folder = tiny_sdxl_pipelines.save(tmp_path / "tiny-sdxl")
    tiny_sdxl_pipelines.contract(sampler="re-noise").save(folder)
    settings = {"model": folder, "redis_url": redis_url, "max_batch": 2, "dtype": "float32", "cpu_runtime": "torch"}
    process = await _start(metrics_port=0, **settings)
    queue = TaskQueue(redis, "tiny-sdxl")
    try:
        await wait_until(queue.workers)
        tasks = [image_task("a red cat", seed=i, index=i, mode="strict") for i in range(4)]
        await queue.admit(tasks, 500, 600)
        await wait_until(lambda: _done(queue, 4))
    finally:
        process.terminate()
        await _ended(process)
    await _same_pixels_here(queue, load(str(folder), device="cpu", dtype="float32"))


async def _done(queue: TaskQueue, count: int) -> bool:
    state = await queue.job("job")
    return state is not None and len(state.results) >= count


async def _same_pixels_here(queue: TaskQueue, model: LoadedModel) -> None:
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
        ({}, "FOURSTEP_REDIS_URL"),
        ({"redis_url": "redis://127.0.0.1:1/0", "max_bach": 4}, "FOURSTEP_MAX_BATCH"),
    ],
)
async def test_a_worker_that_cannot_start_says_why_in_one_line(settings: dict[str, object], reason: str) -> None:
    process = await _start(metrics_port=0, **settings)
    code, error = await _ended(process)
    assert code == 2
    lines = [line for line in error.splitlines() if line.startswith("fourstep worker: ")]
    assert len(lines) == 1
    assert reason in lines[0]
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"model": "spoilt"}, "family: "), ({"device": "cpu", "cuda_graphs": True}, "FOURSTEP_CUDA_GRAPHS")],
)
async def test_what_keeps_the_engine_from_starting_is_one_line(
    settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    if settings.get("model") == "spoilt":
        settings = settings | {"model": str(tiny_pipelines.save(tmp_path, family="sdxl"))}
    process = await _start(metrics_port=0, redis_url="redis://127.0.0.1:1/0", **settings)
    code, error = await _ended(process)
    assert code == 2
    (line,) = [line for line in error.splitlines() if line.startswith("fourstep worker: ")]
    assert reason in line
    assert "Traceback" not in error


@pytest.mark.slow
async def test_a_worker_whose_engine_is_killed_ends_and_says_so(
    redis: Redis, redis_url: str, tiny_folder: Path
) -> None:
    process = await _start(model=tiny_folder, redis_url=redis_url, metrics_port=0, max_batch=2)
    queue = TaskQueue(redis, "tiny-student")
    try:
        await wait_until(queue.workers)
        (engine,) = psutil.Process(process.pid).children()
        assert _maps_torch(engine)
        assert not _maps_torch(psutil.Process(process.pid))
        engine.kill()
        code, error = await _ended(process)
    finally:
        if process.returncode is None:
            process.kill()
    assert code == 1
    assert f"the engine's process (pid {engine.pid}) was killed by SIGKILL" in error
    assert "Traceback" not in error


@pytest.mark.slow
async def test_an_engine_whose_worker_is_killed_ends(redis: Redis, redis_url: str, tiny_folder: Path) -> None:
    process = await _start(model=tiny_folder, redis_url=redis_url, metrics_port=0, max_batch=2)
    queue = TaskQueue(redis, "tiny-student")
    await wait_until(queue.workers)
    (engine,) = psutil.Process(process.pid).children()
    process.kill()
    await _ended(process)  # also the engine has let go of standard error
    await wait_until(lambda: not engine.is_running())


def _maps_torch(process: psutil.Process) -> bool:
    return any("libtorch" in mapped.path for mapped in process.memory_maps())
