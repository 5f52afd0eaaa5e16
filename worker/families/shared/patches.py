"""Latents as tokens of 2 × 2 patches, and their positions: common to FLUX.1 and Qwen-Image."""

import torch
from torch.nn import functional as F

SIDE = 2
"""Latents along the side of a patch."""


def packed(latents: torch.Tensor) -> torch.Tensor:
    """Turn latents [B, C, 2h, 2w] into tokens [B, h·w, 4C], row by row; a token's values are ordered by channel, then
    row, then column within the patch."""
    return F.pixel_unshuffle(latents, SIDE).flatten(2).transpose(1, 2)


def unpacked(tokens: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Turn tokens [B, h·w, 4C] back into the form of `latents` [B, C, 2h, 2w]."""
    height, width = (side // SIDE for side in latents.shape[-2:])
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (height, width)), SIDE)


def image_positions(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the row and the column of each token of an image of `height` × `width` tokens: int64 [h·w] each.

    Made on the device: a copy from the host cannot be part of a CUDA graph.
    """
    number = torch.arange(height * width, device=device)
    return number // width, number % width
