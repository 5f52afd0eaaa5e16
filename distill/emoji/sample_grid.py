"""The grid of pictures that shows how far a teacher is."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import nn

from distill import image_grid
from distill.emoji import pipeline
from distill.families import STABLE_DIFFUSION_3, Family
from distill.method.guidance import conditional, guided
from distill.prompt_embeddings import PromptEmbeddings
from worker.device.bfloat16 import has_native_bfloat16
from worker.sampling.noise_schedule import FLOW, NoiseSchedule, shifted_grid

PROMPTS = (
    "a smiling cat face", "a red apple", "a sunflower", "a 3d rocket", "a fox", "a slice of pizza",
    "a heart with arrow", "a snowman", "an airplane", "a penguin", "fruit", "an animal", "a happy face", "a vehicle",
    "a flower", "",
)  # fmt: skip
GUIDANCE_SCALE = 3.5
GRID = shifted_grid(16, pipeline.SHIFT)


@torch.no_grad()
def draw(
    model: nn.Module,
    vae: AutoencoderTiny,
    embeddings: PromptEmbeddings,
    path: Path,
    family: Family = STABLE_DIFFUSION_3,
    schedule: NoiseSchedule = FLOW,
    grid: tuple[float, ...] = GRID,
) -> None:
    """Write two guided samples of every prompt, row by row, to `path`; `embeddings` holds PROMPTS."""
    prompt, pooled = (torch.cat(part) for part in zip(*map(embeddings.of, PROMPTS), strict=True))
    noise = torch.randn(2, len(PROMPTS), 4, 16, 16, generator=torch.Generator().manual_seed(0))
    empty = [part.expand(len(PROMPTS), *part.shape[1:]) for part in embeddings.of("")]
    positive, negative = (
        conditional(model, *words, family=family, schedule=schedule) for words in ((prompt, pooled), empty)
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=has_native_bfloat16(torch.device("cpu"))):
        latents = torch.cat([schedule.solve(guided(positive, negative, GUIDANCE_SCALE), part, grid) for part in noise])
    image_grid.save_grid(image_grid.to_uint8(pipeline.decode(vae, latents)), len(PROMPTS), path, scale=2)
