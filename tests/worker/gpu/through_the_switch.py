"""Pictures made without a break while the networks are compiled and the engine is switched to them.

`python -m tests.worker.gpu.through_the_switch --backend inductor --pictures 2000` does it with the bundled student.
"""

import argparse
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partialmethod
from queue import SimpleQueue

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from jobs.models import ImageTask
from jobs.testing.waiting import SAFETY_NET_S
from tests.worker.gpu.stand_in_device import StandInDevice
from tests.worker.tasks import image_task
from worker.engine.decoded import Advance
from worker.engine.engine import Engine
from worker.engine.outcomes import Picture
from worker.engine_process.compile_thread import CompileThread
from worker.engine_process.device_thread import DeviceThread
from worker.model_folder.loading import LoadedModel, load

PROMPTS = ("fruit", "a monster", "a happy face", "a fox face", "a panda", "a rocket", "a hamburger", "a rainbow")

IN_ENGINE = 12
"""Pictures that are under way at a time: more than a step holds."""


@dataclass
class Made:
    """The pictures of a run; how many were made when the engine had switched, and what the compiler had counted."""

    pictures: list[tuple[ImageTask, Picture]] = field(default_factory=list)
    before_switch: int = 0
    compiled: Counter[str] = field(default_factory=Counter)

    def decibels(self, solo: dict[str, np.ndarray]) -> dict[str, float]:
        """Return, by mode, the lowest PSNR of a picture against its solo picture; infinite where all bits are equal."""
        worst: dict[str, float] = {}
        for task, picture in self.pictures:
            found = psnr(picture.pixels, solo[name(task)])
            worst[task.mode] = min(found, worst.get(task.mode, np.inf))
        return worst


def name(task: ImageTask) -> str:
    return f"{task.prompt}/{task.seed}/{task.mode}"


def psnr(pixels: np.ndarray, expected: np.ndarray) -> float:
    error = float(((pixels.astype(float) - expected) ** 2).mean())
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


def tasks(distinct: int) -> list[ImageTask]:
    """Every third of them strict."""
    modes = itertools.cycle(("fast", "fast", "strict"))
    prompts = itertools.cycle(PROMPTS)
    return [image_task(next(prompts), seed, mode=next(modes)) for seed in range(distinct)]


def alone(model: LoadedModel, wanted: Sequence[ImageTask], max_batch: int = 8) -> dict[str, np.ndarray]:
    """Make each picture by itself, on an engine without graphs that is not compiled."""
    engine, solo = Engine(model, max_batch), dict[str, np.ndarray]()
    for task in wanted:
        engine.add({"solo": task})
        while engine.busy:
            for outcome in engine.step():
                assert isinstance(outcome, Picture), outcome
                solo[name(task)] = outcome.pixels
    return solo


def through_the_switch(
    device: DeviceThread,
    engine: Engine,
    wanted: Sequence[ImageTask],
    at_least: int,
    after_switch: int,
    pause_s: float = 0.0,
) -> Made:
    """Warm up, compile, and make pictures of `wanted` meanwhile, one after the other and again, until there are
    `at_least` in all and `after_switch` since the compiler ended. From then on compiled code fails where it would have
    to be compiled anew. For `pause_s` after each delivery the compiler has the processor to itself."""
    delivered: SimpleQueue[Advance] = SimpleQueue()
    device.call(engine.warm_up).result()
    device.serve(engine, delivered.put)
    compiling = CompileThread(device)
    compiling.compile(engine)
    given, pending, made = enumerate(itertools.cycle(wanted)), dict[str, ImageTask](), Made()
    while not made.before_switch or len(made.pictures) < max(at_least, made.before_switch + after_switch):
        while len(pending) < IN_ENGINE:
            number, task = next(given)
            pending[str(number)] = task
            device.call(engine.add, {str(number): task})
        for outcome in delivered.get(timeout=SAFETY_NET_S).outcomes():
            assert isinstance(outcome, Picture), outcome
            made.pictures.append((pending.pop(outcome.key), outcome))
        compiling.join(pause_s)
        if not made.before_switch and not compiling.is_alive():
            made.before_switch, made.compiled = len(made.pictures), Counter(counters["stats"])
            torch.compiler.set_stance("fail_on_recompile")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--distinct", type=int, default=240)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with pytest.MonkeyPatch.context() as patches:
        compile_by = partialmethod(torch.nn.Module.compile, backend=arguments.backend)
        patches.setattr(torch.nn.Module, "compile", compile_by)
        model, wanted = load("models/emoji-student", device="cpu", dtype=arguments.dtype), tasks(arguments.distinct)
        solo = alone(model, wanted)
        gpu, device = StandInDevice(), DeviceThread()
        gpu.install(patches)
        device.start()
        engine = Engine(model, 8, gpu.graphs)
        made = through_the_switch(device, engine, wanted, arguments.pictures, arguments.pictures // 2)
        after = Counter(counters["stats"])
        device.stop()
        device.join()
        print(f"{len(made.pictures)} pictures, {made.before_switch} before the switch")
        print(f"lowest PSNR by mode: {made.decibels(solo)}")
        print(f"switched: {engine.runner.executor is not engine.runner.eager}; recompiled: {after - made.compiled}")
        print(f"captured: {len(gpu.graphs.captured)}; replayed: {len(gpu.graphs.replayed)}; {gpu.graphs.faults}")


if __name__ == "__main__":
    main()
