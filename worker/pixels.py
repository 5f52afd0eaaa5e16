"""Decoded images as colour values."""

import numpy as np
import torch


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Turn images [B, 3, H, W] of −1 to 1 into uint8 [B, H, W, 3], rounded as diffusers does."""
    return ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def from_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Turn pixels, uint8 [B, H, W, 3], into images fp32 [B, 3, H, W] of −1 to 1."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def mixed(made: np.ndarray, known: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """Return the picture that is `made` where `painted` is 255 and `known` where it is 0: uint8 [H, W, 3] each, and
    uint8 [H, W] for `painted`."""
    share = painted[..., None].astype(np.float32) / 255
    return (known + share * (made.astype(np.float32) - known)).round().astype(np.uint8)
