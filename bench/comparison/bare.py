"""The engine in a loop, without any server, on the model's core: `python -m bench.comparison.bare` prints JSON."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from bench.comparison import trace
from bench.comparison.systems import MODEL_CORE, PYTHON
from bench.comparison.visit import Bare
from bench.engine.latency_model import sleeping_model
from bench.peers.latency_engine import FIXED_S, PER_ROW_S
from jobs.settings import BUNDLED_MODEL
from worker.engine.engine import Engine
from worker.engine_process.compile_thread import converted
from worker.engine_process.device_thread import DeviceThread
from worker.generate import generate
from worker.model_folder.loading import load
from worker.startup import quiet_libraries

BATCH = 16
"""Images in a full queue: as many as there are callers at saturation."""
TEACHER = BUNDLED_MODEL.parent / "emoji-teacher"


def measured(engine: str, images: int) -> dict[str, Any]:
    """Run in a process of its own: the medians of `images` images in a full queue, and of single calls."""
    command = [*PYTHON, "bench.comparison.bare", "--engine", engine, "--images", str(images)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def bare(figures: dict[str, Any]) -> Bare:
    return Bare(figures["images_per_s"], {int(images): seconds for images, seconds in figures["alone_s"].items()})


def _figures(name: str, images: int) -> dict[str, Any]:
    quiet_libraries()
    teacher = name == "teacher"
    folder = TEACHER if teacher else BUNDLED_MODEL
    model = sleeping_model(FIXED_S, PER_ROW_S) if name == "latency-model" else load(str(folder))
    engine = Engine(model, BATCH)
    if name != "latency-model":  # which computes nothing
        engine.switch(converted(engine, engine.rehearsal.examples()))
    if not teacher:
        engine.warm_up()

    def draw(count: int, seed: int) -> Callable[[], object]:
        calls = trace.singles(count, seed)
        return lambda: generate(engine, [call.prompt for call in calls], [call.seed for call in calls])

    found: dict[str, Any] = {"evaluations": model.contract.evaluations}
    rates = [BATCH / _seconds(draw(BATCH, 1000 + number)) for number in range(max(1, images // BATCH))]
    found["images_per_s"] = round(median(rates), 4)
    if not teacher:
        alone = {count: [_seconds(draw(count, 100 * count + number)) for number in range(7)] for count in (1, 2, 4)}
        found["alone_s"] = {str(count): round(median(seconds), 5) for count, seconds in alone.items()}
    return found


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.comparison.bare", description=__doc__)
    parser.add_argument("--engine", choices=["sampler", "latency-model", "teacher"], default="sampler")
    parser.add_argument("--images", type=int, default=48)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {MODEL_CORE})
    device = DeviceThread()  # set up as the worker's is
    device.start()
    print(json.dumps(device.call(_figures, arguments.engine, arguments.images).result()))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
