"""Latent descriptors: short vectors that say where things are in an image; diversity is measured on them."""

import torch
from torch.nn import functional as F


def latent_descriptors(latents: torch.Tensor, grid: int) -> torch.Tensor:
    """Average latents fp32 [B, C, h, w] over `grid` × `grid` cells, less the mean of all: unit vectors [B, C·grid²]."""
    cells = F.adaptive_avg_pool2d(latents, grid).flatten(1)
    return F.normalize(cells - cells.mean(1, keepdim=True), dim=1)
