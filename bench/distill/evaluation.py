"""Memory of an evaluation at the paper's size: 1,024 prompts with nine pictures of 1024², of a stub generator.

    python -m bench.distill.evaluation

Two processes share the work, as `accelerate launch` would start them. The generator only fills pictures with colours;
`layout` and a small network read them, and the report compares all features. Peak resident memory of each process,
and how much more that is than after the first unit of four prompts.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench import results_file
from distill.evaluation import feature_spaces, pictures, report
from distill.evaluation.benchmark import Benchmark
from distill.evaluation.pictures import PictureSet

CELLS = 32
KEPT = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
"""Let the allocator keep what is freed: to ask the system for every picture anew takes a third of the time."""


def main(
    prompts: int = 1024,
    seeds: int = 9,
    side: int = 1024,
    processes: int = 2,
    child: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    if child:
        print(json.dumps(evaluate(child, prompts, seeds, side)))
        return
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["--prompts", prompts, "--seeds", seeds, "--side", side, "--child", folder]
        command = [sys.executable, "-m", "bench.distill.evaluation", *map(str, sizes)]
        started = time.monotonic()
        environment = os.environ | KEPT
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)
        ]
        found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    whole = 2 * prompts * seeds * side**2 * 3
    result = {
        "prompts": prompts, "seeds": seeds, "side": side, "seconds": round(time.monotonic() - started, 1),
        "pictures_gb": round(whole / 1e9, 1), "processes": found,
    }  # fmt: skip
    results_file.write("evaluation_memory", result)
    for one in found:
        print(f"peak {one['peak_mib']:.0f} MiB, {one['above_first_unit_mib']:.0f} above the first unit's")
    print(f"{result['pictures_gb']} GB of pictures in {result['seconds']} s")


def evaluate(folder: Path, prompts: int, seeds: int, side: int) -> dict[str, Any]:
    """In a process of its own: its share of the pictures, and the report."""
    torch.set_num_threads(1)
    after_first: list[float] = []

    def stub(name: str, seed: int) -> PictureSet:
        def unit(number: int) -> np.ndarray:
            few = len(range(prompts)[pictures.part(number)])
            small = np.random.default_rng([seed, number]).integers(0, 256, (few, seeds, CELLS, CELLS, 3), np.uint8)
            return small.repeat(side // CELLS, 2).repeat(side // CELLS, 3)

        texts = tuple(map(str, range(prompts)))
        return PictureSet(name, 4, texts, tuple(range(seeds)), (side, side), name, unit)

    network = torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten(), torch.nn.LazyLinear(384)).eval()

    @torch.no_grad()
    def small_network(images: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        read = torch.cat([network(part.permute(0, 3, 1, 2).float() / 127.5 - 1) for part in images.split(4)])
        after_first.append(_resident("VmHWM"))
        return read

    spaces = {"layout": feature_spaces.layout, "network": small_network}
    report.compared(
        stub("ours", 0), stub("theirs", 1), Benchmark("prompts", tuple(map(str, range(prompts)))), spaces, folder
    )
    peak = _resident("VmHWM")
    return {
        "peak_mib": peak, "above_first_unit_mib": round(peak - after_first[1], 1), "units": len(after_first) // 2,
    }  # fmt: skip


def _resident(field: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    typer.run(main)
