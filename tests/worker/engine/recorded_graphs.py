"""A stand-in for CUDA graphs that records its captures and replays."""

from collections.abc import Callable

from worker.engine.denoising_step import StepOutputs


class RecordedGraphs:
    """Graphs in Python: a replay calls the function again and writes into the outputs of the capture.

    As on a device with one memory pool, a replay leaves nothing but its own outputs in the memory of the others'.
    """

    def __init__(self) -> None:
        self.captured: list[tuple[int, ...]] = []
        self.replayed: list[int] = []

    def __call__(self) -> "RecordedGraph":
        return RecordedGraph(self)


class RecordedGraph:
    def __init__(self, graphs: RecordedGraphs) -> None:
        self._graphs = graphs

    def capture(self, function: Callable[[], StepOutputs]) -> StepOutputs:
        self._function, self._outputs = function, function()
        self._graphs.captured.append(tuple(self._outputs.latents.shape))
        return self._outputs

    def replay(self) -> None:
        fresh = self._function()
        self._outputs.latents.copy_(fresh.latents)
        self._outputs.pred_x0.copy_(fresh.pred_x0)
        self._graphs.replayed.append(len(fresh.latents))
