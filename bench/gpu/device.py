"""Time, memory and graphs of a device; a CPU stands in for a GPU where the benchmark is tried."""

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from worker.engine.cuda_graphs import CudaGraphs
from worker.engine.denoising_step import StepOutputs
from worker.memory.counting import peak_bytes

MIB = 2**20


class Device:
    """A CUDA device or the CPU; a `hasty` one repeats nothing, and its figures say nothing."""

    def __init__(self, name: str, hasty: bool = False) -> None:
        self.torch, self._hasty = torch.device(name), hasty
        self.is_cuda = self.torch.type == "cuda"

    def facts(self) -> dict[str, Any]:
        if not self.is_cuda:
            return {"device": "cpu", "torch": torch.__version__}
        properties = torch.cuda.get_device_properties(self.torch)
        return {
            "device": properties.name,
            "memory_mib": properties.total_memory // MIB,
            "capability": f"{properties.major}.{properties.minor}",
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.torch)

    def milliseconds(self, work: Callable[[], object], repeats: int = 10) -> float:
        """Median of `repeats` until the device is done, after two that do not count."""
        if self._hasty:
            return round(1000 * self.seconds(work), 3)
        return round(1000 * median([self.seconds(work) for _ in range(repeats + 2)][2:]), 3)

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        with torch.inference_mode():
            work()
        self.wait()
        return time.perf_counter() - began

    def peak_mib(self, work: Callable[[], object]) -> float:
        """The most memory that `work` holds beside what is there before."""
        if not self.is_cuda:
            return round(peak_bytes(work) / MIB, 1)
        self.free()
        before = torch.cuda.memory_allocated(self.torch)
        torch.cuda.reset_peak_memory_stats(self.torch)
        self.seconds(work)
        return round((torch.cuda.max_memory_allocated(self.torch) - before) / MIB, 1)

    def reserved_mib(self) -> float:
        self.free()
        return round(torch.cuda.memory_reserved(self.torch) / MIB, 1) if self.is_cuda else 0.0

    def free(self) -> None:
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()

    def graphs(self) -> Callable[[], Any]:
        """A factory of graphs with one stream and one pool."""
        return CudaGraphs(self.torch) if self.is_cuda else RepeatedCall


class RepeatedCall:
    """Stands for a graph on a CPU: a replay calls the function again and writes into the outputs of the capture."""

    def capture(self, function: Callable[[], StepOutputs]) -> StepOutputs:
        self._function, self._outputs = function, function()
        return self._outputs

    def replay(self) -> None:
        fresh = self._function()
        self._outputs.latents.copy_(fresh.latents)
        self._outputs.pred_x0.copy_(fresh.pred_x0)
