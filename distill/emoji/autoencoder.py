"""Train the autoencoder: 128×128 pixels ↔ 16×16 latents of 16 channels with zero mean and unit variance."""

import os
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from diffusers.optimization import get_cosine_schedule_with_warmup
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from distill import image_grid
from distill.emoji.artwork import Artwork
from distill.emoji.average import averaged
from distill.training import training_loop
from worker.device.bfloat16 import has_native_bfloat16
from worker.pixels import to_uint8

LATENT_CHANNELS = 16
BATCH = 16
CPU = torch.device("cpu")
LATENT_NOISE = 0.15
"""Standard deviation of the noise put on the latents, so that the decoder forgives a sampler's small errors."""


def build() -> AutoencoderTiny:
    """The decoder is slim where the picture is large: there every block costs most of an image's time."""
    return AutoencoderTiny(
        encoder_block_out_channels=(48, 48, 48, 48),
        decoder_block_out_channels=(32, 32, 32, 32),
        num_encoder_blocks=(0, 1, 3, 3),
        num_decoder_blocks=(4, 4, 1, 1),
        latent_channels=LATENT_CHANNELS,
    )


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W, 3] → float32 [B, 3, H, W] in [−1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def train(
    artwork: Artwork, folder: Path, steps: int, batch: int = BATCH, device: torch.device = CPU
) -> AutoencoderTiny:
    """Train (or go on training) in `folder` on `device`; returns the averaged weights."""
    torch.manual_seed(0)
    images = torch.from_numpy(artwork.images).to(device)
    model = build().to(device, memory_format=torch.channels_last)
    average = averaged(model, 0.998)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, 200, steps)
    stream = training_loop.RandomStream(0)

    def step(index: int) -> dict[str, float]:
        rows = torch.randint(len(images), (batch,), generator=stream.generator)
        shown = to_float(images[rows.to(device)]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_native_bfloat16(device)):
            latents = model.encode(shown).latents.float()
            noise = torch.randn(latents.shape, generator=stream.generator).to(device)
            decoded = model.decode(latents + LATENT_NOISE * noise).sample.float()
        pixels, edges = _pixel_loss(decoded, shown), _edge_loss(decoded, shown)
        unit = latents.mean((0, 2, 3)).square().mean() + (latents.std((0, 2, 3)) - 1).square().mean()
        training_loop.update(pixels + edges + 0.1 * unit, optimizer, schedule, clip=1.0)
        average.update_parameters(model)
        return {"psnr": _psnr(decoded, shown), "edges": edges.item(), "unit": unit.item()}

    def sample(done: int) -> None:
        some = to_float(images[:: len(images) // 48][:48])
        decoded = reconstruct(average.module, some)
        both = torch.stack([some, decoded], 1).flatten(0, 1)
        image_grid.save_grid(to_uint8(both).cpu().numpy(), 16, folder / f"grid-{done:06}.png")

    parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule, "stream": stream}
    training_loop.run(folder, parts, step, steps, save_every=100, sample_every=500, sample=sample, samples=batch)
    return average.module


@torch.no_grad()
def reconstruct(model: AutoencoderTiny, images: torch.Tensor) -> torch.Tensor:
    """float32 [B, 3, H, W] → the same shape, through the latents."""
    return model.decode(model.encode(images).latents).sample


@torch.no_grad()
def encode_all(model: AutoencoderTiny, artwork: Artwork) -> torch.Tensor:
    """The latents of every picture, on the model's device: float32 [N, channels, 16, 16]."""
    images = torch.from_numpy(artwork.images)
    return torch.cat([model.encode(to_float(part.to(model.device))).latents for part in images.split(64)])


def kept_latents(model: AutoencoderTiny, artwork: Artwork, path: Path) -> torch.Tensor:
    """The latents of every picture as the file `path` keeps them; encoded when it does not exist yet."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        save_file({"latents": encode_all(model, artwork).cpu().contiguous()}, partial)
        os.replace(partial, path)
    return load_file(path)["latents"].to(model.device)


def _pixel_loss(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(decoded, target) + 2 * F.mse_loss(decoded, target)


def _edge_loss(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 between the images' differences of neighbouring pixels: sharp outlines, no halos."""
    across = F.l1_loss(decoded.diff(dim=3), target.diff(dim=3))
    return across + F.l1_loss(decoded.diff(dim=2), target.diff(dim=2))


def _psnr(decoded: torch.Tensor, target: torch.Tensor) -> float:
    """Decibels, for values in [−1, 1] (peak 2)."""
    return 10 * torch.log10(4 / F.mse_loss(decoded, target)).item()
