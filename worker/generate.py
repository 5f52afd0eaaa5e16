"""Pictures without a server: the engine run until it is idle, or one batch without an engine."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from jobs.models import ImageTask, Mode
from worker.engine.denoising_step import StepInputs
from worker.engine.device_path import DevicePath
from worker.engine.engine import Engine
from worker.engine.row import Failure, Picture
from worker.families.prompt_embeddings import stacked
from worker.model_folder import LoadedModel
from worker.pixels import to_uint8
from worker.sampling import noise


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


@torch.inference_mode()
def generate_batch(
    model: LoadedModel, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int] | None = None
) -> np.ndarray:
    """All pairs of prompt and seed as one batch, in step with each other → uint8 [N, height, width, 3].

    For other servers that bring their own batching. The batch is as large as it is given: nothing is planned, padded
    or kept between calls. `size` is (height, width) in pixels, by default the model's native one.
    """
    network, steps = model.network, model.table.steps
    negative = network.negative(network.encode([""])[0]) if model.contract.guidance_scale > 1 else None
    path = DevicePath(model, network, negative)
    shape = network.latent_shape(*(size or model.contract.sizes[0]))
    drawn = torch.stack([noise.draw(seed, shape, model.table.noise_draws) for seed in seeds], dim=1).to(network.device)
    latents, embeddings = drawn[0], stacked(network.encode(prompts))
    for step in range(steps):
        index = torch.full((len(latents),), step, device=network.device)
        latents = path.step(StepInputs(latents, index, embeddings, drawn[1 + step] if len(drawn) > 1 else None)).latents
    return to_uint8(path.decode(latents)).cpu().numpy()
