"""Guidance: one prediction from those with and without the prompt."""

from collections.abc import Callable

import torch

Guide = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
"""(prediction without the prompt, prediction with it, guidance scale) → the guided prediction, float32 [B, …] each."""


def classifier_free_guidance(unconditional: torch.Tensor, conditional: torch.Tensor, scale: float) -> torch.Tensor:
    """unconditional + scale·(conditional − unconditional), arXiv 2207.12598; a scale of 1 means no guidance."""
    return unconditional + scale * (conditional - unconditional)
