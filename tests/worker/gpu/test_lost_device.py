"""A device that has failed ends its worker: none of the images is failed, and another worker makes them."""

import asyncio
import gc
import os
import sys
import weakref
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from redis.asyncio import Redis

from jobs.settings import WorkerSettings
from jobs.testing.waiting import SAFETY_NET_S, outcome, wait_until
from tests.task_queue import TaskQueue
from tests.worker.gpu.stand_in_device import ILLEGAL_ACCESS, OUT_OF_MEMORY, Stage, StandInDevice
from tests.worker.tasks import image_task, pictures, run
from worker.engine.denoising_step import StepOutputs
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure
from worker.engine.step_graphs import Graph
from worker.engine_process.compile_thread import CompileThread
from worker.engine_process.device_thread import DeviceThread
from worker.errors import DeviceLostError, EngineEndedError
from worker.families.network import Network
from worker.model_folder.loading import LoadedModel
from worker.startup import model_card
from worker.testing.local_engine import serve_here

IMAGES = 12
"""Of a job that a losing worker begins: three times as many as it makes."""

HAS_FAILED = "cpu has failed: CUDA error: an illegal memory access was encountered"


@pytest.fixture
def engine(gpu: StandInDevice, one_size: LoadedModel) -> Engine:
    engine = Engine(one_size, 2, gpu.graphs)
    engine.warm_up()
    return engine


def _lose_at(gpu: StandInDevice, stage: Stage, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    """Lose the device when `stage` begins, where `error` is raised, by default the device's own."""
    begin = gpu.run

    def run(begun: Stage, rows: int) -> None:
        if begun == stage:
            gpu.lose()
            if error:
                raise error
        begin(begun, rows)

    monkeypatch.setattr(gpu, "run", run)


@pytest.mark.parametrize("stage", ["encode", "predict", "decode"])
@pytest.mark.parametrize("error", [None, RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED")])
def test_c_no_image_fails_by_a_lost_device(
    gpu: StandInDevice, engine: Engine, monkeypatch: pytest.MonkeyPatch, stage: Stage, error: Exception | None
) -> None:
    _lose_at(gpu, stage, monkeypatch, error)
    with pytest.raises(DeviceLostError, match=f"^{HAS_FAILED}$"):
        run(engine, [image_task("another sun", seed) for seed in range(50)])


def test_c_a_preview_that_loses_the_device_is_no_matter_of_the_preview(
    gpu: StandInDevice, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.watched = {"job"}
    engine.add({"0": image_task()})
    _lose_at(gpu, "decode", monkeypatch)
    with pytest.raises(DeviceLostError):
        engine.step()


def test_a_device_that_says_once_more_that_its_memory_ran_out_is_not_lost(
    gpu: StandInDevice, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what was launched before does when it is waited for."""
    run_out = [OUT_OF_MEMORY["driver"]] * 2

    def synchronize() -> None:
        if run_out:
            raise run_out.pop()("out of memory")

    monkeypatch.setattr(gpu, "synchronize", synchronize)
    assert len(pictures(engine, [image_task("another sun", seed) for seed in range(2)])) == 2
    assert run_out == []


def test_an_error_of_one_image_is_its_own(gpu: StandInDevice, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as fault:
        fault.setattr(gpu, "run", lambda stage, rows: (_ for _ in ()).throw(RuntimeError("no such thing")))
        outcomes = run(engine, [image_task()])
    assert outcomes == {"0": Failure("0", "error", "RuntimeError: no such thing")}
    assert len(pictures(engine, [image_task()])) == 1


def _graphs_that_raise(error: Exception) -> Callable[[], Graph]:
    class Raising(Graph):
        def capture(self, function: Callable[[], StepOutputs]) -> StepOutputs:
            raise error

    return Raising


def test_c_a_capture_that_the_device_gave_up_ends_the_start(gpu: StandInDevice, one_size: LoadedModel) -> None:
    """torch would go on in the middle of it: its streams and its memory stay those of the capture."""
    graphs = _graphs_that_raise(torch.AcceleratorError("CUDA error: operation not permitted\nand advice"))
    with pytest.raises(DeviceLostError, match=r"FOURSTEP_CUDA_GRAPHS=0 .*: CUDA error: operation not permitted$"):
        Engine(one_size, 2, graphs).warm_up()


@pytest.mark.parametrize("found_by", OUT_OF_MEMORY)
def test_a_capture_without_memory_is_done_without(gpu: StandInDevice, one_size: LoadedModel, found_by: str) -> None:
    engine = Engine(one_size, 2, _graphs_that_raise(OUT_OF_MEMORY[found_by]("out of memory")))
    engine.warm_up()
    assert len(pictures(engine, [image_task()])) == 1


def test_a_call_that_fails_keeps_no_tensor(device: DeviceThread) -> None:
    """The call after it has their memory, when the garbage collector has not run."""
    tensors: list[weakref.ref[torch.Tensor]] = []

    def run_out() -> None:
        tensor = torch.zeros(1)
        tensors.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError

    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            device.call(run_out).result()
        assert device.call(tensors[0]).result() is None
    finally:
        gc.enable()


def _lost() -> None:
    raise torch.AcceleratorError(ILLEGAL_ACCESS)


def test_c_a_measurement_that_loses_the_device_ends_its_thread(device: DeviceThread, engine: Engine) -> None:
    """Whoever asked for it, and whatever it makes of the error."""
    device.serve(engine, lambda advance: None)
    with pytest.raises(DeviceLostError):
        device.call(_lost).result()
    with pytest.raises(DeviceLostError, match=HAS_FAILED):
        device.stopped.result(SAFETY_NET_S)


def test_c_a_compiler_whose_code_loses_the_device_ends_the_device_thread(
    gpu: StandInDevice, device: DeviceThread, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "compiled", lambda network: _lost())
    device.serve(engine, lambda advance: None)
    CompileThread(device).compile(engine)
    with pytest.raises(DeviceLostError, match=HAS_FAILED):
        device.stopped.result(SAFETY_NET_S)


def test_a_report_that_cannot_be_made_ends_the_engine(one_size: LoadedModel) -> None:
    """The safety model runs on the thread of the reports: whoever waits for one would wait for ever."""
    engine = Engine(one_size, 2)
    engine.judge = lambda pictures: _lost()  # type: ignore[assignment, return-value]
    client = serve_here(engine, model_card(engine, WorkerSettings()), DeviceThread())
    client.add({"0": image_task()})
    with pytest.raises(EngineEndedError, match="an illegal memory access"):
        client.stopped.result(SAFETY_NET_S)
    client.close()


async def _worker(module: tuple[str, ...], **settings: object) -> Process:
    variables = {f"FOURSTEP_{name.upper()}": str(value) for name, value in settings.items()}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", *module, env=os.environ | variables, stderr=PIPE)


@pytest.mark.slow
async def test_c_the_images_of_a_worker_that_lost_its_device_are_made_by_another(
    redis: Redis, redis_url: str, tiny_folder: Path
) -> None:
    settings: dict[str, Any] = {"model": tiny_folder, "redis_url": redis_url, "metrics_port": 0, "max_batch": 2}
    settings |= {"dtype": "float32", "cpu_runtime": "torch", "lease_s": 1}
    queue = TaskQueue(redis, "tiny-student")
    losing = await _worker(("tests.worker.gpu.losing_worker",), **settings)
    other = None
    try:
        await wait_until(queue.workers)
        await queue.admit([image_task("a red cat", seed=index, index=index) for index in range(IMAGES)], 500, 600)
        _, error = await outcome(losing.communicate())
        left = await queue.job("job")
        assert left is not None
        assert len(left.results) < IMAGES
        other = await _worker(("fourstep", "worker"), **settings)

        async def all_settled() -> bool:
            state = await queue.job("job")
            return state is not None and state.settled

        await wait_until(all_settled)
    finally:
        for process in (losing, other):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
    assert losing.returncode == 1
    (line,) = [line for line in error.decode().splitlines() if "CUDA error" in line]
    assert f"the worker ends, and its leases with it: {HAS_FAILED}" in line
    assert "Traceback" not in error.decode()
    state = await queue.job("job")
    assert state is not None
    assert state.failures == []
    assert sorted(result.index for result in state.results) == [*range(IMAGES)]
