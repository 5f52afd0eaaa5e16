"""The engine serves while its networks are compiled, switches over, and compiles nothing while it serves."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partialmethod
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from tests.worker.engine.recorded_graphs import RecordedGraphs
from tests.worker.tasks import image_task, pictures
from worker.engine.decoded import Advance
from worker.engine.engine import Engine
from worker.engine.outcomes import Picture
from worker.engine_process.compile_thread import CompileThread
from worker.engine_process.device_thread import DeviceThread
from worker.model_folder.loading import LoadedModel, served
from worker.testing import tiny_pipelines

WAIT_S = 500


@pytest.fixture
def _traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without the code generator, which takes long: graphs are traced and guarded, and run as they are."""
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))


@pytest.fixture(autouse=True)
def _compiler_as_it_was() -> Iterator[None]:
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit
    yield
    torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit = limits
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


@pytest.fixture
def device() -> Iterator[DeviceThread]:
    thread = DeviceThread()
    thread.start()
    yield thread
    thread.stop()
    thread.join()


def _one_size() -> LoadedModel:
    return served("tiny", "ab", tiny_pipelines.contract(sizes=[(64, 64)]), tiny_pipelines.build())


def _compiled(device: DeviceThread, engine: Engine) -> CompileThread:
    thread = CompileThread(device)
    thread.compile(engine)
    thread.join(WAIT_S)
    assert not thread.is_alive()
    return thread


@pytest.mark.slow
def test_images_are_made_before_during_and_after_the_switch(
    device: DeviceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        begun.set()
        assert go_on.wait(WAIT_S)
        return graph

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    engine, delivered, made = Engine(_one_size(), 2), SimpleQueue[Advance](), 0

    def make_one() -> None:
        nonlocal made
        made += 1
        device.call(engine.add, {str(made): image_task(seed=made)}).result()
        (outcome,) = delivered.get(timeout=WAIT_S).outcomes()
        assert isinstance(outcome, Picture)
        assert outcome.key == str(made)

    device.call(engine.warm_up).result()
    device.serve(engine, delivered.put)
    make_one()
    thread = CompileThread(device)
    thread.compile(engine)
    assert begun.wait(WAIT_S)
    for _ in range(3):
        make_one()
    assert engine.runner.executor is engine.runner.eager
    go_on.set()
    while thread.is_alive():
        make_one()
        thread.join(0.1)
    make_one()
    assert engine.runner.executor is not engine.runner.eager
    assert delivered.empty()


@pytest.mark.slow
@pytest.mark.usefixtures("_traced_only")
def test_serving_compiles_nothing_and_strict_images_never_take_the_compiled_path(device: DeviceThread) -> None:
    engine = Engine(_one_size(), 2)
    tasks = [image_task("sun", seed, mode=mode) for seed in range(3) for mode in ("strict", "fast")]
    before = pictures(engine, tasks)
    _compiled(device, engine)
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    after = pictures(engine, tasks)
    unseen = engine.rehearsal.examples()[0]
    wide = torch.cat([unseen.latents, unseen.latents], dim=3)
    with torch.inference_mode():
        engine.runner.executor.step(replace(unseen, latents=wide))  # a size that nobody compiled
    assert counters["stats"]["unique_graphs"] == compiled
    for task, early, late in zip(tasks, before, after, strict=True):
        difference = np.abs(early.pixels.astype(int) - late.pixels).max()
        assert difference == 0 if task.mode == "strict" else difference <= 1


@pytest.mark.slow
@pytest.mark.usefixtures("_traced_only")
def test_the_compiled_path_gets_graphs_of_its_own_before_the_switch(device: DeviceThread) -> None:
    recorded = RecordedGraphs()
    engine = Engine(_one_size(), 2, recorded)
    device.call(engine.warm_up).result()
    _compiled(device, engine)
    captured = [(2, 4, 16, 16), (1, 4, 16, 16)]
    assert recorded.captured == [*captured, *captured]
    device.call(pictures, engine, [image_task()]).result()
    assert recorded.captured == [*captured, *captured]
    assert recorded.replayed[-4:] == [1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("_traced_only")
@pytest.mark.parametrize("fault", ["the compiler raises", "the code is wrong"])
def test_a_compiler_that_fails_or_errs_leaves_the_engine_as_it_was(
    device: DeviceThread, monkeypatch: pytest.MonkeyPatch, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        if fault == "the compiler raises":
            raise RuntimeError("no C++ compiler here")
        return lambda *values: tuple(2 * out for out in graph(*values))

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    engine = Engine(_one_size(), 1)
    _compiled(device, engine)
    assert engine.runner.executor is engine.runner.eager
    assert engine.compiling_failed
    assert "serving on without" in caplog.text
    assert len(pictures(engine, [image_task()])) == 1


def test_the_compiled_twin_shares_the_weights(tiny_model: LoadedModel) -> None:
    network = tiny_model.network
    twin = network.compiled()
    for ours, theirs in ((network.denoiser, twin.denoiser), (network.vae, twin.vae)):
        addresses = [tensor.data_ptr() for tensor in ours.parameters()]
        assert addresses == [tensor.data_ptr() for tensor in theirs.parameters()]


@pytest.mark.slow
@pytest.mark.timeout(2 * WAIT_S)
def test_generated_code_gives_the_eager_pixels(device: DeviceThread) -> None:
    """The real compiler, for one shape."""
    engine = Engine(_one_size(), 1)
    eager = pictures(engine, [image_task("sun", seed) for seed in range(3)])
    _compiled(device, engine)
    assert engine.runner.executor is not engine.runner.eager
    compiled = pictures(engine, [image_task("sun", seed) for seed in range(3)])
    for early, late in zip(eager, compiled, strict=True):
        assert np.abs(early.pixels.astype(int) - late.pixels).max() <= 1
