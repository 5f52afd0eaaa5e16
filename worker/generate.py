"""Pictures without a server: the engine run until it is idle."""

import time
from collections.abc import Sequence

import numpy as np

from jobs.models import ImageTask, Mode
from worker.engine import Engine
from worker.row import Failure, Picture


def generate(
    engine: Engine,
    prompts: Sequence[str],
    seeds: Sequence[int],
    size: tuple[int, int] | None = None,
    mode: Mode = "fast",
) -> np.ndarray:
    """One image for each pair of prompt and seed → uint8 [N, height, width, 3], in their order.

    `size` is (height, width) in pixels, by default the model's native one. Nobody else may be using `engine`.
    Raises RuntimeError with the first failure.
    """
    height, width = size or engine.model.contract.sizes[0]
    common = {"job_id": "generate", "height": height, "width": width, "mode": mode, "created": time.time()}
    tasks = {
        str(index): ImageTask.model_validate({**common, "index": index, "prompt": prompt, "seed": seed})
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    }
    engine.add(tasks)
    pixels = np.empty((len(tasks), height, width, 3), dtype=np.uint8)
    while engine.busy:
        for outcome in engine.step():
            if isinstance(outcome, Failure):
                raise RuntimeError(f"image {outcome.key}: {outcome.detail}")
            assert isinstance(outcome, Picture)
            pixels[int(outcome.key)] = outcome.pixels
    return pixels
