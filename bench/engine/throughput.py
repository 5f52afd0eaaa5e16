"""Images a second: the engine against StableDiffusion3Pipeline.__call__, same student, interleaved.

The pipelines have a process of their own, which is set up as torch sets it up, not as a worker is. On a CPU with one
thread, work is counted in seconds of CPU time, so that other processes do not blur the ratios.
"""

import argparse
import itertools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline

from bench import results_file
from jobs.sampling_contract import SamplingContract
from jobs.settings import BUNDLED_MODEL
from worker.device.bfloat16 import has_native_bfloat16
from worker.engine.engine import Engine
from worker.engine_process.compile_thread import compile_shape
from worker.engine_process.device_thread import DeviceThread
from worker.generate import generate
from worker.model_folder.loading import device_and_dtype, load
from worker.startup import quiet_libraries

Make = Callable[[Sequence[str]], float]
"""Makes one image for each prompt; returns the seconds that it took."""

_numbers = itertools.count()


def main() -> None:
    options = _options()
    device = DeviceThread()
    device.start()
    figures = device.call(_run, options).result()  # on a thread set up as the worker's is
    results_file.write("engine_throughput", figures)
    _show(figures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    native = has_native_bfloat16(device_and_dtype("auto", "auto")[0])
    parser.add_argument("--model", default=str(BUNDLED_MODEL))
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--images", type=int, default=16, help="images in one timed call")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"] if native else ["float32"])
    parser.add_argument(
        "--compile",
        nargs="*",
        default=["bfloat16"] if native else ["float32"],
        help="dtypes that the engine also runs compiled",
    )
    return parser.parse_args()


def _run(options: argparse.Namespace) -> dict[str, Any]:
    quiet_libraries()
    contenders: dict[str, Make] = {}
    clock = _clock(options.model)
    here, there = multiprocessing.Pipe()
    multiprocessing.get_context("spawn").Process(target=_pipelines, args=(there, options), daemon=True).start()
    for dtype in options.dtypes:
        model = load(options.model, dtype=dtype)
        for batch in options.batches:
            contenders[f"pipeline {dtype} eager {batch}"] = partial(_elsewhere, here, (dtype, batch))
            contenders[f"engine {dtype} eager {batch}"] = _engine(Engine(model, batch), clock)
            if dtype in options.compile:
                contenders[f"engine {dtype} compiled {batch}"] = _engine(_compiled(Engine(model, batch), batch), clock)
    for make in contenders.values():
        make(["warm-up"] * options.images)
    rates = {
        kind: _rates(contenders, prompts, options.images, options.repeats)
        for kind, prompts in (("distinct prompts", _fresh_prompts), ("one prompt", lambda count: ["a cat"] * count))
    }
    clock_name = "CPU seconds" if clock is time.process_time else "seconds"
    best = {kind: _best(of_kind) for kind, of_kind in rates.items()}
    return {"per": clock_name, "images_per_second": rates, "best": best, "ratios": _ratios(best)}


def _clock(model: str) -> Callable[[], float]:
    on_cpu = device_and_dtype("auto", "auto")[0].type == "cpu"
    return time.process_time if on_cpu and torch.get_num_threads() == 1 else time.perf_counter


def _fresh_prompts(count: int) -> list[str]:
    return [f"cat {next(_numbers)}" for _ in range(count)]


def _timed(make: Callable[[Sequence[str]], Any], clock: Callable[[], float]) -> Make:
    def timed(prompts: Sequence[str]) -> float:
        started = clock()
        make(prompts)
        return clock() - started

    return timed


def _engine(engine: Engine, clock: Callable[[], float]) -> Make:
    return _timed(lambda prompts: generate(engine, prompts, range(len(prompts))), clock)


def _compiled(engine: Engine, batch: int) -> Engine:
    """Compiled for full batches only, which are all that this benchmark runs."""
    compiled = engine.runner.new_compiled()
    compile_shape(compiled, engine.runner.eager, engine.rehearsal.examples()[0])
    engine.switch(compiled)
    return engine


def _elsewhere(connection: Connection, which: tuple[str, int], prompts: Sequence[str]) -> float:
    connection.send((which, prompts))
    return connection.recv()


def _pipelines(connection: Connection, options: argparse.Namespace) -> None:
    """Do what `_elsewhere` asks for: `which` dtype and batch size, and for what prompts."""
    quiet_libraries()
    clock = _clock(options.model)
    made = {
        (dtype, batch): _timed(_pipeline(options.model, dtype, batch), clock)
        for dtype in options.dtypes
        for batch in options.batches
    }
    with suppress(EOFError):  # whoever asks has ended
        while True:
            which, prompts = connection.recv()
            connection.send(made[which](prompts))


def _pipeline(folder: str, dtype: str, batch: int) -> Callable[[Sequence[str]], None]:
    """As its users load and call it."""
    contract = SamplingContract.load(Path(folder))
    device, torch_dtype = device_and_dtype("auto", dtype)
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch_dtype).to(device)
    pipeline.scheduler.set_shift(1.0)  # the grid is taken as it is
    pipeline.set_progress_bar_config(disable=True)
    assert contract.sigmas is not None
    sigmas, (height, width) = contract.sigmas[:-1], contract.sizes[0]

    def make(prompts: Sequence[str]) -> None:
        for first in range(0, len(prompts), batch):
            part = list(prompts[first : first + batch])
            pipeline(
                part,
                sigmas=sigmas,
                num_inference_steps=contract.steps,
                guidance_scale=contract.guidance_scale,
                generator=[torch.Generator().manual_seed(first + row) for row in range(len(part))],
                height=height,
                width=width,
                max_sequence_length=contract.max_sequence_length,
                output_type="np",
            )

    return make


def _rates(
    contenders: dict[str, Make],
    prompts: Callable[[int], list[str]],
    images: int,
    repeats: int,
) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, make in contenders.items():
            seconds[name].append(make(prompts(images)))
    return {name: round(images / median(taken), 3) for name, taken in seconds.items()}


def _best(rates: dict[str, float]) -> dict[str, float]:
    """The rate of each contender at its own best batch size."""
    best: dict[str, float] = {}
    for name, rate in rates.items():
        contender = name.rpartition(" ")[0]
        best[contender] = max(rate, best.get(contender, 0.0))
    return best


def _ratios(best: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        kind: {
            f"{ours} / {theirs}": round(rates[ours] / rates[theirs], 2)
            for ours in rates
            for theirs in rates
            if ours.startswith("engine") and theirs.startswith("pipeline")
        }
        for kind, rates in best.items()
    }


def _show(figures: dict[str, Any]) -> None:
    for kind, rates in figures["best"].items():
        print(f"\n{kind}: images per {figures['per'].removesuffix('s')} at the best batch size")
        for name, rate in rates.items():
            print(f"  {name:28} {rate:8.2f}")
        for name, ratio in figures["ratios"][kind].items():
            print(f"  {name:60} {ratio:5.2f}x")


if __name__ == "__main__":
    main()
