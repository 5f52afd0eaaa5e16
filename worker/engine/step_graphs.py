"""Denoising steps replayed from CUDA graphs: one graph of the whole step for each shape of a batch."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from worker.device.accelerator import first_line, is_out_of_memory, memory_stays
from worker.engine.denoising_step import StepInputs, StepOutputs
from worker.errors import DeviceLostError

log = logging.getLogger(__name__)

NOT_RECORDED = "a step could not be recorded as a CUDA graph (FOURSTEP_CUDA_GRAPHS=0 serves without)"

Step = Callable[[StepInputs], StepOutputs]
_Shapes = tuple[torch.Size, ...]
"""The shapes of all tensors of a batch, the latents first."""


class Graph(Protocol):
    """A recorded function; see worker.engine.cuda_graphs."""

    def capture(self, function: Callable[[], StepOutputs]) -> StepOutputs:
        """Record `function`; every replay writes its outputs into the tensors returned here."""

    def replay(self) -> None:
        """Run the recording on the present contents of its input tensors."""


@dataclass(frozen=True)
class _Captured:
    graph: Graph
    inputs: StepInputs
    outputs: StepOutputs


class StepGraphs:
    """Runs `step`, from a graph where one was captured for the shapes of the batch, else as it is.

    All graphs read the same input buffers, of which a smaller batch uses the first rows: capture the largest first.
    """

    def __init__(self, step: Step, new_graph: Callable[[], Graph]) -> None:
        self._step = step
        self._new_graph = new_graph
        self._captured: dict[_Shapes, _Captured] = {}
        self._failed: set[_Shapes] = set()
        self._buffers: dict[tuple[str, torch.Size], torch.Tensor] = {}

    def capture(self, example: StepInputs) -> None:
        """Record the step at the shapes of `example`. When that fails, such batches run without a graph.

        Raises DeviceLostError when the device gave up the recording: torch cannot leave it, and runs nothing right.
        """
        shapes = _shapes(example)
        try:
            graph, inputs = self._new_graph(), example.map(self._buffer)
            with memory_stays:
                outputs = graph.capture(lambda: self._step(inputs))
            self._captured[shapes] = _Captured(graph, inputs, outputs)
        except RuntimeError as error:  # also out of memory
            if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
                raise DeviceLostError(f"{NOT_RECORDED}: {first_line(error)}") from error
            log.exception("no CUDA graph for latents of %s: these steps run without", tuple(example.latents.shape))
            self._failed.add(shapes)

    def drop(self) -> None:
        """Give up all graphs and buffers, and that some could not be captured."""
        self._captured.clear()
        self._failed.clear()
        self._buffers.clear()

    def miss(self, inputs: StepInputs) -> str | None:
        """Say why a batch has no graph: `capture_failed`, `batch` (never captured) or `embedding` (another shape)."""
        shapes = _shapes(inputs)
        if shapes in self._captured:
            return None
        if shapes in self._failed:
            return "capture_failed"
        return "embedding" if any(captured[0] == shapes[0] for captured in self._captured) else "batch"

    def __call__(self, inputs: StepInputs) -> StepOutputs:
        if self.miss(inputs) is not None:
            return self._step(inputs)
        captured = self._captured[_shapes(inputs)]
        fresh = inputs.named_tensors
        for name, static in captured.inputs.named_tensors.items():
            static.copy_(fresh[name], non_blocking=True)
        captured.graph.replay()
        # Cloned: the next replay writes into the same tensors.
        return StepOutputs(captured.outputs.latents.clone(), captured.outputs.pred_x0.clone())

    def _buffer(self, name: str, example: torch.Tensor) -> torch.Tensor:
        """Return the first rows of the buffer for tensors like `example`, filled with its values."""
        rows = len(example)
        whole = self._buffers.get((name, example.shape[1:]))
        if whole is None or len(whole) < rows:
            whole = self._buffers[name, example.shape[1:]] = example.clone()
        return whole[:rows].copy_(example)


def _shapes(inputs: StepInputs) -> _Shapes:
    return tuple(tensor.shape for tensor in inputs.named_tensors.values())
