"""Classifier-free guidance as a velocity function."""

import torch

from distill.flow import Velocity


def conditional(model: torch.nn.Module, prompt: torch.Tensor, pooled: torch.Tensor) -> Velocity:
    """The model's own velocity for `prompt` float32 [B, tokens, width] and `pooled` float32 [B, width]."""

    def velocity(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return model(state, prompt, pooled, t * 1000, return_dict=False)[0].float()

    return velocity


def guided(positive: Velocity, negative: Velocity, scale: float) -> Velocity:
    """negative + scale·(positive − negative); two evaluations, one after the other, for a lower memory peak."""

    def velocity(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        without = negative(state, t)
        return without + scale * (positive(state, t) - without)

    return velocity
