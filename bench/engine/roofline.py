"""The networks' speed as a share of the machine's matrix-product rate, by stage, rows, threads and number format.

Operations are counted by torch's FlopCounterMode. The matrix product is timed in the same run, between the stages, so
that a machine whose speed drifts changes both. Writes the table of docs/performance-results.md; `--page` only that.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import results_file
from bench.markdown import filled, table
from jobs.settings import BUNDLED_MODEL
from worker.device.bfloat16 import has_native_bfloat16
from worker.engine_process.device_thread import DeviceThread
from worker.families.network import Network
from worker.families.prompt_embeddings import PromptEmbedding, stacked
from worker.model_folder.loading import load
from worker.startup import quiet_libraries

PAGE = Path(__file__).parents[2] / "docs" / "performance-results.md"

PRODUCTS = ((2048, 2048, 2048), (640, 192, 768))
"""Matrix products whose faster one is the machine's rate: a large one, and one of the bundled student's own."""

RUNTIMES = ("torch", "openvino")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    native = has_native_bfloat16(torch.device("cpu"))
    parser.add_argument("--page", action="store_true", help="only write the table of the figures that are there")
    parser.add_argument("--model", default=str(BUNDLED_MODEL))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"] if native else ["float32"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--rounds", type=int, default=10, help="timed runs of each stage, of which the fastest counts")
    options = parser.parse_args()
    if not options.page:
        results_file.write("roofline", {"runs": list(_runs(options))})
    PAGE.write_text(rendered(PAGE.read_text()))


def _runs(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """Each in a process of its own: the number of threads is settled with the first product."""
    for threads in options.threads:
        for dtype in options.dtypes:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                yield pool.apply(_run, (options, threads, dtype))


def _run(options: argparse.Namespace, threads: int, dtype: str) -> dict[str, Any]:
    device = DeviceThread()
    device.start()
    torch.set_num_threads(threads)
    return device.call(_measure, options, threads, dtype).result()  # on a thread set up as the worker's is


@torch.inference_mode()
def _measure(options: argparse.Namespace, threads: int, dtype: str) -> dict[str, Any]:
    torch.set_num_threads(threads)  # it counts for this thread alone
    quiet_libraries()
    model = load(options.model, device="cpu", dtype=dtype)
    size, eager, memory, started = model.contract.sizes[0], model.network, _memory_mib(), time.perf_counter()
    networks = {"torch": eager, "openvino": eager.converted()}
    embedding = eager.encode(["a smiling cat face"])[0]
    stages = {
        (stage, rows, runtime): call
        for rows in options.rows
        for runtime, network in networks.items()
        for stage, call in _stages(network, embedding, eager.latent_shape(*size), rows).items()
    }
    for call in stages.values():
        call()
    prepared = {"seconds": time.perf_counter() - started, "mib": _memory_mib() - memory}
    products = {f"product {shape}": _product(*shape, model.network.dtype) for shape in PRODUCTS}
    seconds = _fastest({**stages, **products}, options.rounds)
    rate = max(2 * m * n * k / seconds[f"product {(m, k, n)}"] for m, k, n in PRODUCTS)
    cells = []
    for stage, rows, runtime in stages:
        if runtime == "torch":
            flop = _operations(stages[stage, rows, runtime])
            taken = {each: seconds[stage, rows, each] for each in RUNTIMES}
            share = {each: flop / taken[each] / rate for each in RUNTIMES}
            cells.append({"stage": stage, "rows": rows, "gflop": flop / 1e9, "seconds": taken, "share": share})
    return {"threads": threads, "dtype": dtype, "gflops": rate / 1e9, "openvino_prepared_in": prepared, "cells": cells}


def _stages(
    network: Network, embedding: PromptEmbedding, shape: tuple[int, int, int], rows: int
) -> dict[str, Callable[[], object]]:
    latents, timesteps = torch.randn(rows, *shape), torch.linspace(250, 1000, rows)
    embeddings, prompts = stacked([embedding] * rows), [f"prompt {number}" for number in range(rows)]
    return {
        "text encoders": lambda: network.encode(prompts),
        "denoiser": lambda: network.predict(latents, timesteps, embeddings),
        "decoder": lambda: network.decode(latents),
    }


def _product(m: int, k: int, n: int, dtype: torch.dtype) -> Callable[[], object]:
    left, right = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    return lambda: left @ right


def _fastest(calls: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, float]:
    """The seconds of the fastest run of each, in `rounds` rounds through all of them."""
    fastest = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(2):  # the second finds its own weights in the cache, as in serving
                started = time.perf_counter()
                call()
                fastest[name] = min(fastest[name], time.perf_counter() - started)
    return fastest


def _operations(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def _memory_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def rendered(page: str) -> str:
    """`page` with its table made anew."""
    runs = results_file.read("roofline")["runs"]
    head = ["PyTorch → OpenVINO", *(f"{run['dtype']}, {_threads(run['threads'])}" for run in runs)]
    lines: list[list[str]] = [["matrix product", *(f"{run['gflops']:.0f} GFLOP/s" for run in runs)]]
    for cells in zip(*(run["cells"] for run in runs), strict=True):
        rows = cells[0]["rows"]
        lines.append([f"{cells[0]['stage']}, {rows} row{'s' if rows > 1 else ''}", *map(_cell, cells)])
    return filled(page, {"roofline": table(head, lines)})


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"


def _cell(cell: dict[str, Any]) -> str:
    (before, after), (was, share) = ([cell[figure][each] for each in RUNTIMES] for figure in ("seconds", "share"))
    return f"{before * 1e3:.1f} → {after * 1e3:.1f} ms: {before / after:.2f}× ({was:.2f} → {share:.2f})"


if __name__ == "__main__":
    main()
