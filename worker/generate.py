"""Generate pictures without a server: by an engine, or as one batch without one."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from jobs.models import ImageTask, Mode
from worker.engine.denoising_step import DenoisingStep, Guidance
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure, Picture
from worker.families.prompt_embeddings import repeated, stacked
from worker.model_folder.loading import LoadedModel
from worker.pixels import to_uint8
from worker.sampling import noise
from worker.sampling import step_table as sampler


def generate(
    engine: Engine,
    prompts: Sequence[str],
    seeds: Sequence[int],
    size: tuple[int, int] | None = None,
    mode: Mode = "fast",
) -> np.ndarray:
    """Generate one image for each pair of prompt and seed: uint8 [N, height, width, 3], in their order.

    `size` is (height, width) in pixels, by default the model's native one. `engine` must be idle and not shared.
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
    """Generate all pairs of prompt and seed as one batch, in lockstep: uint8 [N, height, width, 3].

    For other servers that bring their own batching. The batch is as large as it is given: nothing is scheduled, padded
    or kept between calls. `size` is (height, width) in pixels, by default the model's native one.
    """
    size = size or model.contract.sizes[0]
    network, table = model.network, model.size_tables.get(size, model.table).to(model.network.device)
    step = DenoisingStep(network.predict, table, network.guide)
    guidance = None
    if (scale := model.contract.guidance_scale) > 1:
        negative = network.negative(network.encode([network.negative_prompt])[0])
        guidance = Guidance(repeated(negative, len(seeds)), torch.full([len(seeds)], scale, device=network.device))
    shape = network.latent_shape(*size)
    drawn = torch.stack([noise.draw(seed, shape, table.noise_draws) for seed in seeds], dim=1).to(network.device)
    latents = sampler.sample(table, step.predictor(stacked(network.encode(prompts)), guidance), drawn)
    return to_uint8(network.decode(latents)).cpu().numpy()
