"""Guidance: one prediction from those with and without the prompt."""

from collections.abc import Callable

import torch

Scale = float | torch.Tensor
"""A guidance scale: one for all rows, or float32 [B, 1, …]."""

Guide = Callable[[torch.Tensor, torch.Tensor, Scale], torch.Tensor]
"""(prediction without the prompt, prediction with it, guidance scale) → the guided prediction, float32 [B, …] each."""


def classifier_free_guidance(unconditional: torch.Tensor, conditional: torch.Tensor, scale: Scale) -> torch.Tensor:
    """unconditional + scale·(conditional − unconditional), arXiv 2207.12598; a scale of 1 means no guidance."""
    return unconditional + scale * (conditional - unconditional)
