"""Where things are in an image, as a short vector read off its latents: what diversity is measured on."""

import torch
from torch.nn import functional as F


def latent_descriptors(latents: torch.Tensor, grid: int) -> torch.Tensor:
    """fp32 [B, C, h, w] → unit vectors fp32 [B, C · grid²]: means over `grid` × `grid` cells, less their own mean."""
    cells = F.adaptive_avg_pool2d(latents, grid).flatten(1)
    return F.normalize(cells - cells.mean(1, keepdim=True), dim=1)
