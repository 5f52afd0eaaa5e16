"""Decoded images as bytes."""

import torch


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """fp32 [B, 3, H, W] in −1…1 → uint8 [B, H, W, 3], rounded as diffusers does."""
    return ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
