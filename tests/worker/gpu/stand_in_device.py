"""A stand-in for a CUDA device, on which the worker takes every decision of its CUDA path on the CPU.

Networks and tensors stay on the CPU. What only a device has is in Python: graphs, memory that runs out, an error after
which nothing works any more.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import pytest
import torch

from tests.worker.engine.recorded_graphs import RecordedGraphs
from worker import startup
from worker.device import accelerator
from worker.families.network import Network

Stage = Literal["encode", "predict", "decode"]
STAGES: tuple[Stage, ...] = get_args(Stage)

ILLEGAL_ACCESS = (
    "CUDA error: an illegal memory access was encountered\n"
    "CUDA kernel errors might be asynchronously reported at some other API call"
)


def driver_out_of_memory(message: str) -> torch.AcceleratorError:
    """The error of a device whose driver, and not torch's allocator, has no memory left."""
    error = torch.AcceleratorError(f"CUDA error: {message}")
    error.error_code = accelerator.OUT_OF_MEMORY  # type: ignore[attr-defined]
    return error


OUT_OF_MEMORY: dict[str, Callable[[str], RuntimeError]] = {
    "allocator": torch.OutOfMemoryError,
    "driver": driver_out_of_memory,
    "cuDNN": lambda message: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuDNN 9": lambda message: RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "cuDNN's choice": lambda message: RuntimeError("GET was unable to find an engine to execute this computation"),
    "cuBLAS": lambda message: RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    ),
    "Triton": lambda message: RuntimeError("Triton Error [CUDA]: out of memory"),
    "compiler's launcher": lambda message: RuntimeError("CUDA driver error: out of memory"),
    "driver, within the compiler": lambda message: RuntimeError("AcceleratorError: CUDA error: out of memory"),
}
"""The errors of memory that ran out, by who finds that."""


class StandInDevice:
    """A device for all networks of this process from `install` on.

    `graphs` are its CUDA graphs. A stage needs `row_bytes` of the `memory` for each of its rows, but the step of a
    replay, whose memory is that of its graph. Graphs share a `pool` as large as the largest step ever captured, which
    nothing else can use until none of them is left and the cached memory was given back. `runs` lists the stages that
    ran, with their number of rows, and `out_of_memory` those that did not fit, for which `memory_error` is raised.
    """

    def __init__(self) -> None:
        self.graphs = RecordedGraphs()
        self.memory = math.inf
        self.pool = 0
        self.row_bytes: dict[Stage, int] = dict.fromkeys(STAGES, 0)
        self.runs: list[tuple[Stage, int]] = []
        self.out_of_memory: list[tuple[Stage, int]] = []
        self.memory_error = OUT_OF_MEMORY["allocator"]
        self._lost = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the device in the CPU's place."""
        for stage in STAGES:
            monkeypatch.setattr(Network, stage, _on(self, stage, getattr(Network, stage)))
        monkeypatch.setattr(accelerator, "has_accelerator", lambda device: True)
        monkeypatch.setattr(torch.accelerator, "current_stream", lambda device: self)
        monkeypatch.setattr(torch.accelerator, "empty_cache", self._empty_cache)
        monkeypatch.setattr(accelerator, "held", self._held)
        # Of a worker that is started by its settings:
        monkeypatch.setattr(startup, "CudaGraphs", lambda device: self.graphs)
        monkeypatch.setattr(startup, "_replays_graphs", lambda settings, device: settings.cuda_graphs is not False)

    @contextmanager
    def _held(self, nbytes: int, device: torch.device) -> Iterator[None]:
        self.memory -= nbytes
        yield
        self.memory += nbytes

    def _empty_cache(self) -> None:
        self.synchronize()
        self.graphs.check(not self.graphs.capturing, "memory is given back while a graph is recorded")
        if not self.graphs.alive:
            self.pool = 0

    def lose(self) -> None:
        """From now on whatever asks the device for anything gets the error of a lost context."""
        self._lost = True

    def query(self) -> bool:
        """Return whether all work is done, which here ends as soon as it is given."""
        self.synchronize()
        return True

    def synchronize(self) -> None:
        """Report a lost context, as a stream does when its work is waited for."""
        if self._lost:
            raise torch.AcceleratorError(ILLEGAL_ACCESS)

    def run(self, stage: Stage, rows: int) -> None:
        """Begin a stage. Raises torch.AcceleratorError or `memory_error`."""
        self.synchronize()
        needed = rows * self.row_bytes[stage]
        in_its_graph = stage == "predict" and self.graphs.replaying
        if not in_its_graph and self.pool + needed > self.memory:  # also of a capture, whose first runs have no graph
            self.out_of_memory.append((stage, rows))
            raise self.memory_error(f"out of memory: {stage} of {rows} rows")
        if self.graphs.capturing:
            self.pool = max(self.pool, needed)
        self.runs.append((stage, rows))


def _on(device: StandInDevice, stage: Stage, method: Callable[..., Any]) -> Callable[..., Any]:
    def run(network: Network, batch: Any, *more: Any, **named: Any) -> Any:
        device.run(stage, len(batch))
        return method(network, batch, *more, **named)

    return run
