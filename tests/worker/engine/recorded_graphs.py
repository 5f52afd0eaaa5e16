"""A stand-in for CUDA graphs that records its captures and replays, and says when one was not fit to be replayed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

import torch

from worker.engine.denoising_step import StepOutputs


class RecordedGraphs:
    """Graphs in Python: a replay calls the function again and writes into the outputs of the capture.

    As on a device with one memory pool, a replay leaves nothing but its own outputs in the memory of the others'.
    A replay raises AssertionError, and enters it into `faults`, when another runs at the same time, when its thread or
    inference mode are not those of its capture, or when others have written into the tensors that it owns.
    """

    def __init__(self) -> None:
        self.captured: list[tuple[int, ...]] = []
        self.replayed: list[int] = []
        self.faults: list[str] = []
        self.alive: WeakSet[RecordedGraph] = WeakSet()
        self.capturing = self.replaying = False
        self._one_at_a_time = threading.Lock()

    def __call__(self) -> "RecordedGraph":
        return RecordedGraph(self)

    def check(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)
            raise AssertionError(fault)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run one replay or capture; raises AssertionError when another is under way."""
        self.check(self._one_at_a_time.acquire(blocking=False), "two graphs run at the same time")
        try:
            yield
        finally:
            self._one_at_a_time.release()


class RecordedGraph:
    def __init__(self, graphs: RecordedGraphs) -> None:
        self._graphs = graphs

    def capture(self, function: Callable[[], StepOutputs]) -> StepOutputs:
        with self._graphs.alone():
            self._graphs.capturing = True
            try:
                self._function, self._outputs = function, function()
            finally:
                self._graphs.capturing = False
        self._captured_by, self._written = _caller(), self._copies()
        self._graphs.alive.add(self)
        self._graphs.captured.append(tuple(self._outputs.latents.shape))
        return self._outputs

    def replay(self) -> None:
        captured_by, replayed_by = self._captured_by, _caller()
        self._graphs.check(captured_by == replayed_by, f"captured by {captured_by}, replayed by {replayed_by}")
        with self._graphs.alone():
            kept = all(map(torch.equal, self._copies(), self._written))
            self._graphs.check(kept, "others have written into the outputs of a graph")
            self._graphs.replaying = True
            try:
                fresh = self._function()
            finally:
                self._graphs.replaying = False
            self._outputs.latents.copy_(fresh.latents)
            self._outputs.pred_x0.copy_(fresh.pred_x0)
            self._written = self._copies()
        self._graphs.replayed.append(len(fresh.latents))

    def _copies(self) -> list[torch.Tensor]:
        return [self._outputs.latents.clone().nan_to_num(), self._outputs.pred_x0.clone().nan_to_num()]


def _caller() -> tuple[str, bool]:
    """The thread, and whether it is in inference mode."""
    return threading.current_thread().name, torch.is_inference_mode_enabled()
