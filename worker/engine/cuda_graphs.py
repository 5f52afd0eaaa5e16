"""One CUDA graph: a function's kernels, recorded once and launched together."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch

from worker.engine.denoising_step import StepOutputs

FIRST_RUNS = 3
"""Runs before a capture, in which cuBLAS handles are made, kernels chosen and code compiled: a capture cannot hold
that."""


class CudaGraphs:
    """Factory of graphs that take their memory from one pool.

    Memory that a graph needs only while it runs is shared with the others, since no two run at the same time. torch
    shares it only between captures on one stream, and gives it back only when none of the graphs is left.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._graphs: WeakSet[CudaGraph] = WeakSet()

    def __call__(self) -> "CudaGraph":
        if not self._graphs:  # torch takes no pool again whose graphs are gone
            self._pool = torch.cuda.graph_pool_handle()
        graph = CudaGraph(self._device, self._pool, self._stream)
        self._graphs.add(graph)
        return graph


class CudaGraph:
    """A `Graph` on a CUDA device. The tensors that the function reads and returns must live as long as the graph."""

    def __init__(self, device: torch.device, pool: Any, stream: torch.cuda.Stream) -> None:
        self._device = device
        self._pool, self._stream = pool, stream
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, function: Callable[[], StepOutputs]) -> StepOutputs:
        """Run and record `function`.

        Raises torch.AcceleratorError for an operation that a graph cannot hold, after which torch allocates and
        launches as if it were recording for ever.
        """
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(FIRST_RUNS):
                function()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        # Only this thread's calls are held to the rules of a capture: others may copy or allocate meanwhile.
        recording = torch.cuda.graph(self._graph, pool=self._pool, stream=stream, capture_error_mode="thread_local")
        # Around it: when the end of a capture raises, as without memory, torch.cuda.graph does not leave its stream.
        with torch.cuda.stream(torch.cuda.current_stream(self._device)), recording:
            return function()

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._graph.replay()
