"""A family's blocks and decoder, compiled beside serving."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from jobs.testing.waiting import SAFETY_NET_S
from tests.worker.engine.recorded_graphs import RecordedGraphs
from tests.worker.families.published import PROMPTS, SEEDS, model_of
from tests.worker.tasks import image_task, pictures
from worker.engine.engine import Engine
from worker.engine_process.compile_thread import CompileThread
from worker.engine_process.device_thread import DeviceThread
from worker.model_folder.contract import resized
from worker.model_folder.loading import LoadedModel


def check_compiles(model: LoadedModel, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and decoder are traced as whole graphs beside serving. Then they make the same pictures, each step is a
    replay, and nothing is traced or captured any more.

    Without generating code, which takes minutes and is the compiler's own business.
    """
    right = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: right(self, backend="eager", **options))
    network = model.network
    twin = network.compiled()
    assert all(block._compiled_call_impl is not None for block in network.family.blocks(twin.denoiser))
    assert {id(weight) for weight in twin.denoiser.parameters()} == {id(w) for w in network.denoiser.parameters()}
    model = model_of(network.pipeline, resized(model.contract, [size], network.pipeline))
    device, recorded = DeviceThread(), RecordedGraphs()
    device.start()
    config = torch._dynamo.config
    limits = config.recompile_limit, config.accumulated_recompile_limit
    try:
        _check_switch(Engine(model, 2, recorded), recorded, device)
    finally:
        config.recompile_limit, config.accumulated_recompile_limit = limits
        device.stop()
        device.join()
        torch.compiler.set_stance("default")
        torch._dynamo.reset()


def _check_switch(engine: Engine, recorded: RecordedGraphs, device: DeviceThread) -> None:
    tasks = [image_task(*pair, mode=mode) for pair in zip(PROMPTS, SEEDS, strict=True) for mode in ("strict", "fast")]
    device.call(engine.warm_up).result()
    before = device.call(pictures, engine, tasks).result()
    thread = CompileThread(device)
    thread.compile(engine)
    thread.join(SAFETY_NET_S)
    assert engine.runner.executor is not engine.runner.eager
    missed: set[str | None] = set()
    engine.runner.measure = lambda measured: missed.add(measured.graph_miss)
    made = counters["stats"]["unique_graphs"], len(recorded.captured)
    after = device.call(pictures, engine, tasks).result()
    device.call(pictures, engine, tasks[1:2]).result()  # a batch of another size
    assert (counters["stats"]["unique_graphs"], len(recorded.captured)) == made
    assert missed == {None}
    assert max(np.abs(a.pixels.astype(int) - b.pixels).max() for a, b in zip(before, after, strict=True)) <= 1
