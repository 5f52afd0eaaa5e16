"""Decoded images as colour values."""

import torch


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Turn images [B, 3, H, W] of −1 to 1 into uint8 [B, H, W, 3], rounded as diffusers does."""
    return ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
