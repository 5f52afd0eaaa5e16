"""Graphs and the host's time between two steps: a replay waits for nothing, allocates nothing more, and is measured."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.metrics import WorkerMetrics
from tests.worker.gpu.stand_in_device import StandInDevice
from tests.worker.tasks import image_task, pictures
from worker.device import accelerator
from worker.engine.denoising_step import DenoisingStep, StepInputs, StepOutputs
from worker.engine.engine import Engine
from worker.engine.step_graphs import StepGraphs
from worker.families.prompt_embeddings import PromptEmbedding
from worker.model_folder.loading import LoadedModel
from worker.process import observe
from worker.testing import tiny_pipelines

STEPS = 4


class Launched(TorchDispatchMode):
    """Counts the operations that the host gives its device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations[str(func)] += 1
        return func(*args, **(kwargs or {}))


class OneLaunch:
    """A graph as the host sees it: a replay is a single call of the driver."""

    def __init__(self) -> None:
        self.replays = 0

    def capture(self, function: Callable[[], StepOutputs]) -> StepOutputs:
        return function()

    def replay(self) -> None:
        self.replays += 1


@torch.inference_mode()
def test_a_replay_copies_its_inputs_and_allocates_its_results_alone(one_size: LoadedModel) -> None:
    """On the meta device, where whatever waits for a value raises."""
    one_size.network.denoiser.to("meta")
    meta = partial(torch.empty, device="meta")
    embeddings = PromptEmbedding(meta(2, 77 + tiny_pipelines.TOKENS, 64), meta(2, 64))
    inputs = StepInputs(meta(2, 4, 16, 16), meta(2, dtype=torch.int64), embeddings)
    graph = OneLaunch()
    graphs = StepGraphs(DenoisingStep(one_size.network.predict, one_size.table.to(torch.device("meta"))), lambda: graph)
    graphs.capture(inputs)
    with Launched() as launched:
        graphs(inputs)
    assert graph.replays == 1
    assert launched.operations == {"aten.copy_.default": len(inputs.named_tensors), "aten.clone.default": 2}


@pytest.mark.parametrize("graphs", [False, True])
def test_each_step_waits_once_and_its_gap_is_observed(
    gpu: StandInDevice, one_size: LoadedModel, monkeypatch: pytest.MonkeyPatch, graphs: bool
) -> None:
    engine, registry, waits = Engine(one_size, 2, gpu.graphs if graphs else None), CollectorRegistry(), []
    engine.warm_up()
    wait_for = accelerator.wait_for
    monkeypatch.setattr(accelerator, "wait_for", lambda device: (waits.append(device), wait_for(device)))
    engine.runner.measure = partial(observe, WorkerMetrics(registry))
    pictures(engine, [image_task()])
    assert len(waits) == STEPS
    assert registry.get_sample_value("fourstep_step_gap_seconds_count") == STEPS - 1
    replays = registry.get_sample_value("fourstep_graph_replays_total", {"bucket": "1"})
    assert replays == (STEPS if graphs else None)
