"""Compiling and capturing beside serving: every picture is right, and nothing is compiled or captured afterwards."""

import logging
import re
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from tests.worker.gpu.stand_in_device import Stage, StandInDevice
from tests.worker.gpu.through_the_switch import alone, tasks, through_the_switch
from tests.worker.tasks import image_task, pictures
from worker.engine.denoising_step import StepInputs
from worker.engine.engine import Engine
from worker.engine.executor import Executor
from worker.engine_process import compile_thread
from worker.engine_process.compile_thread import CompileThread, compile_shape
from worker.engine_process.device_thread import DeviceThread
from worker.families.network import Network
from worker.model_folder.loading import LoadedModel

ENOUGH_DB = 40.0
"""PSNR of two pictures whose values differ by rounding alone."""

DISTINCT = 12
AFTER_SWITCH = 24
PAUSE_S = 0.2
"""Long enough for the engine to run out of rows: a compiler beside a thread that never waits takes minutes."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "which", "max_batch"),
    [("eager", "student", 3), ("inductor", "one_size", 2), ("eager", "one_size_in_bfloat16", 2)],
    indirect=["backend"],
)
def test_a_every_picture_through_the_switch_is_right(
    device: DeviceThread,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    backend: str,
    which: str,
    max_batch: int,
) -> None:
    """With the bundled student the third batch size would be one compilation too many on the device's thread."""
    caplog.set_level(logging.INFO, "worker")
    model: LoadedModel = request.getfixturevalue(which)
    wanted = tasks(DISTINCT)
    solo = alone(model, wanted, max_batch)
    gpu = StandInDevice()
    gpu.install(monkeypatch)
    engine = Engine(model, max_batch, gpu.graphs)
    made = through_the_switch(device, engine, wanted, 0, AFTER_SWITCH, PAUSE_S)
    assert engine.runner.executor is not engine.runner.eager
    assert Counter(counters["stats"]) == made.compiled
    assert len(gpu.graphs.captured) == 2 * len(engine.timetable.measured((64, 64)))
    assert gpu.graphs.faults == []
    assert made.before_switch > 0
    worst = made.decibels(solo)
    assert worst["fast"] >= ENOUGH_DB
    assert worst["strict"] == np.inf
    said = [record.getMessage() for record in caplog.records if record.name == CompileThread.__module__]
    (line,) = [each for each in said if "ready in" in each]
    gained = rf"serving by it: {max_batch} rows of 64×64 take \S+ ms a step, not \S+ \(\S+ times as fast\)"
    assert re.search(gained, line), line


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager"], indirect=True)
def test_b_the_comparison_takes_no_graph(
    gpu: StandInDevice, device: DeviceThread, one_size: LoadedModel, backend: str
) -> None:
    engine = Engine(one_size, 2, gpu.graphs)
    device.call(engine.warm_up).result()
    (example, _) = device.call(engine.rehearsal.examples).result()
    replayed, compiled = len(gpu.graphs.replayed), engine.runner.new_compiled()
    compile_shape(compiled, engine.runner.eager, example)  # on this thread, as on the compiler's
    device.call(compiled.capture, example).result()
    compile_shape(compiled, engine.runner.eager, example)
    assert len(gpu.graphs.replayed) == replayed
    assert gpu.graphs.faults == []


def _serving(gpu: StandInDevice, device: DeviceThread, model: LoadedModel) -> Engine:
    """An engine for one row, which has warmed up."""
    engine = Engine(model, 1, gpu.graphs)
    device.call(engine.warm_up).result()
    device.serve(engine, lambda advance: None)
    return engine


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager"], indirect=True)
def test_a_compiler_that_runs_out_of_memory_once_goes_on(
    gpu: StandInDevice, device: DeviceThread, one_size: LoadedModel, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    engine = _serving(gpu, device, one_size)
    begin, refused = gpu.run, list[Stage]()

    def run(stage: Stage, rows: int) -> None:
        if stage == "decode" and threading.current_thread().name == "compile" and not refused:
            refused.append(stage)
            raise gpu.memory_error("out of memory")
        begin(stage, rows)

    monkeypatch.setattr(gpu, "run", run)
    thread = CompileThread(device)
    thread.compile(engine)
    thread.join()
    assert refused == ["decode"]
    assert engine.runner.executor is not engine.runner.eager


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager"], indirect=True)
def test_eager_code_is_not_captured_in_the_place_of_compiled_code(
    gpu: StandInDevice, device: DeviceThread, one_size: LoadedModel, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """As when what the compiler's thread took for granted does not hold on the thread that captures."""
    capture, captured = Executor.capture, list[Executor]()

    def noted(executor: Executor, example: StepInputs) -> None:
        before = len(gpu.graphs.captured)
        capture(executor, example)
        captured.extend([executor] * (len(gpu.graphs.captured) - before))

    monkeypatch.setattr(Executor, "capture", noted)
    engine = _serving(gpu, device, one_size)
    compiled_shape = compile_thread.compile_shape

    def compile_in_another_state(*arguments: Any) -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            compiled_shape(*arguments)
        finally:
            torch.use_deterministic_algorithms(False)

    monkeypatch.setattr(compile_thread, "compile_shape", compile_in_another_state)
    thread = CompileThread(device)
    thread.compile(engine)
    thread.join()
    assert engine.runner.executor is engine.runner.eager
    assert captured == [engine.runner.eager] * 2  # at warm-up, and when the compiler was given up


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager"], indirect=True)
def test_compiled_code_beside_whose_graphs_strict_rows_are_not_decoded_is_given_up(
    gpu: StandInDevice, device: DeviceThread, one_size: LoadedModel, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    row, predict = 1 << 30, Network.predict

    def twice_as_much_compiled(network: Network, *inputs: Any, **named: Any) -> Any:
        gpu.row_bytes["predict"] = row if network is one_size.network else 2 * row
        return predict(network, *inputs, **named)

    monkeypatch.setattr(Network, "predict", twice_as_much_compiled)
    gpu.memory, gpu.row_bytes["decode"] = 6.5 * row, 2 * row
    engine, strict = Engine(one_size, 2, gpu.graphs), [image_task(seed=seed, mode="strict") for seed in range(2)]
    device.call(engine.warm_up).result()
    before = device.call(pictures, engine, strict).result()
    device.serve(engine, lambda advance: None)
    thread = CompileThread(device)
    thread.compile(engine)
    thread.join()
    assert engine.runner.executor is engine.runner.eager
    assert set(gpu.out_of_memory) == {("decode", 2)}
    assert gpu.pool == 2 * row
    after = device.call(pictures, engine, strict).result()
    assert all(np.array_equal(early.pixels, late.pixels) for early, late in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager"], indirect=True)
def test_e_only_as_many_rows_are_compiled_for_the_decoder_as_it_decodes_at_once(
    gpu: StandInDevice, device: DeviceThread, one_size: LoadedModel, backend: str
) -> None:
    row = 1 << 30
    gpu.memory, gpu.row_bytes["decode"] = 8.5 * row, 5 * row
    engine = Engine(one_size, 2, gpu.graphs)
    made = through_the_switch(device, engine, tasks(DISTINCT), 0, AFTER_SWITCH, PAUSE_S)
    assert engine.runner.executor is not engine.runner.eager
    assert Counter(counters["stats"]) == made.compiled
    assert gpu.out_of_memory == [("decode", 2)]  # at warm-up
    assert max(rows for stage, rows in gpu.runs if stage == "decode") == 1
