"""The grid of pictures that shows how far a teacher is."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import nn

from distill import image_grid
from distill.emoji import pipeline
from distill.method.guidance import conditional, guided
from distill.prompt_embeddings import PromptEmbeddings
from worker.device.bfloat16 import has_native_bfloat16
from worker.families.base import Family
from worker.families.registry import STABLE_DIFFUSION_3
from worker.pixels import to_uint8
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
    numbers = {prompt: number for number, prompt in enumerate(embeddings.prompts)}
    asked, empty = (
        embeddings.rows(torch.tensor([numbers[text] for text in texts])) for texts in (PROMPTS, [""] * len(PROMPTS))
    )
    shape = (2, len(PROMPTS), vae.config.latent_channels, 16, 16)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(vae.device)
    side = 16 * 2 ** (len(vae.config.block_out_channels) - 1)
    positive, negative = (
        conditional(model, words, size=(side, side), family=family, schedule=schedule) for words in (asked, empty)
    )
    with torch.autocast(vae.device.type, torch.bfloat16, enabled=has_native_bfloat16(vae.device)):
        latents = torch.cat([schedule.solve(guided(positive, negative, GUIDANCE_SCALE), part, grid) for part in noise])
    pixels = to_uint8(pipeline.decode(vae, latents)).cpu().numpy()
    image_grid.save_grid(pixels, len(PROMPTS), path)
