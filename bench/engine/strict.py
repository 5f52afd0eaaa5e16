"""Count images that are bit-equal to solo ones in random company, how close the others are, and that none is swapped.

On a CPU OpenVINO runs the networks, and PyTorch with `--runtime torch`.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench import results_file
from jobs.models import ImageTask, Mode
from jobs.settings import BUNDLED_MODEL
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure, Measured, Picture
from worker.engine_process.compile_thread import converted
from worker.engine_process.device_thread import DeviceThread
from worker.generate import generate
from worker.model_folder.loading import LoadedModel, load
from worker.startup import quiet_libraries

PROMPTS = ["a smiling cat face", "fruit", "a red heart", "animal", "a sad face", "sun", "flower", "a green car"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(BUNDLED_MODEL))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--compositions", type=int, default=1000, help="random batches in each mode")
    parser.add_argument("--runtime", choices=["openvino", "torch"], default="openvino")
    parser.add_argument("--modes", nargs="+", choices=["strict", "fast"], default=["strict", "fast"])
    options = parser.parse_args()
    device = DeviceThread()
    device.start()
    figures = device.call(_run, options).result()  # on a thread set up as the worker's is
    results_file.write("strict" if options.runtime == "openvino" else "strict_torch", figures)
    print(figures)


def _run(options: argparse.Namespace) -> dict[str, Any]:
    quiet_libraries()
    model = load(options.model, dtype=options.dtype)
    requests = [(prompt, seed) for prompt in PROMPTS for seed in range(4)]
    figures: dict[str, Any] = {
        "dtype": str(model.network.dtype).removeprefix("torch."),
        "runtime": options.runtime,
        "max_batch": options.max_batch,
    }
    new_engine = _engines(model, options)
    if "strict" in options.modes:
        solo = _solo(new_engine, requests, "strict")
        figures["strict"] = _compare_bits(_stream(new_engine, options, requests, ("strict", "fast"), seed=1), solo)
    if "fast" in options.modes:
        solo = _solo(new_engine, requests, "fast")
        figures["fast"] = _compare_closely(_stream(new_engine, options, requests, ("fast",), seed=2), solo)
    return figures


Request = tuple[str, int]
Made = tuple[Request, Mode, np.ndarray, int]
"""A request, its mode, the pixels, and the batches run so far."""


def _engines(model: LoadedModel, options: argparse.Namespace) -> Callable[[], Engine]:
    """Return what makes an engine as a worker has it some seconds after its start."""
    first = Engine(model, options.max_batch)
    executor = converted(first, first.rehearsal.examples()) if options.runtime == "openvino" else None

    def new_engine() -> Engine:
        engine = Engine(model, options.max_batch)
        if executor:
            engine.switch(executor)
        return engine

    return new_engine


def _solo(new_engine: Callable[[], Engine], requests: list[Request], mode: Mode) -> dict[Request, np.ndarray]:
    """Each image by an engine that never sees another one at the same time."""
    engine = new_engine()
    return {one: generate(engine, [one[0]], [one[1]], mode=mode)[0] for one in requests}


def _stream(
    new_engine: Callable[[], Engine],
    options: argparse.Namespace,
    requests: list[Request],
    modes: tuple[Mode, ...],
    seed: int,
) -> Iterator[Made]:
    """Images that join and leave at random step boundaries until enough batches ran; restarts now and then."""
    dice, batches = random.Random(seed), 0

    def count(measured: Measured) -> None:
        nonlocal batches
        batches += measured.stage == "denoise_step"

    while batches < options.compositions:
        engine, waiting = new_engine(), dict[str, tuple[Request, Mode]]()
        engine.runner.measure = count
        until = min(options.compositions, batches + 100)
        while batches < until or engine.busy:
            for _ in range(dice.choice([0, 0, 1, 2, 3, options.max_batch]) if batches < until else 0):
                one, mode, key = dice.choice(requests), dice.choice(modes), str(dice.random())
                waiting[key] = one, mode
                engine.add({key: _task(engine.model, one, mode, dice)})
            for outcome in engine.step() if engine.busy else []:
                if isinstance(outcome, Failure):
                    raise RuntimeError(outcome.detail)
                assert isinstance(outcome, Picture)
                yield *waiting.pop(outcome.key), outcome.pixels, batches


def _task(model: LoadedModel, request: Request, mode: Mode, dice: random.Random) -> ImageTask:
    height, width = model.contract.sizes[0]
    prompt, seed = request
    return ImageTask(
        job_id=str(dice.randrange(4)),
        index=0,
        prompt=prompt,
        seed=seed,
        height=height,
        width=width,
        created=dice.random(),
        mode=mode,
    )


def _compare_bits(made: Iterator[Made], solo: dict[Request, np.ndarray]) -> dict[str, Any]:
    images, equal, batches = 0, 0, 0
    for request, mode, pixels, batches in made:  # noqa: B007
        if mode == "strict":
            images, equal = images + 1, equal + np.array_equal(pixels, solo[request])
    return {"batches": batches, "images": images, "bit_equal": equal, "share": equal / images}


def _compare_closely(made: Iterator[Made], solo: dict[Request, np.ndarray]) -> dict[str, Any]:
    names, references = list(solo), np.stack(list(solo.values())).astype(np.int32)
    worst_psnr, largest, swapped, images, equal, batches = float("inf"), 0, 0, 0, 0, 0
    for request, _, pixels, batches in made:  # noqa: B007
        errors = ((references - pixels) ** 2).mean((1, 2, 3))
        mine = names.index(request)
        swapped += int(errors.argmin() != mine)
        largest = max(largest, int(np.abs(references[mine] - pixels).max()))
        equal += int(errors[mine] == 0)
        worst_psnr = min(worst_psnr, _psnr(float(errors[mine])))
        images += 1
    return {
        "batches": batches,
        "images": images,
        "bit_equal": equal,
        "share": equal / images,
        "worst_psnr_db": None if worst_psnr == float("inf") else round(worst_psnr, 1),
        "largest_difference_levels": largest,
        "swapped": swapped,
    }


def _psnr(squared_error: float) -> float:
    """Decibels of an error in levels of 0…255."""
    return float("inf") if squared_error == 0 else 10 * math.log10(255**2 / squared_error)


if __name__ == "__main__":
    main()
