"""Classifier-free guidance as a function of state and noise level."""

from collections.abc import Callable
from typing import Any

import torch

from distill.families import STABLE_DIFFUSION_3, Family
from worker.sampling.noise_schedule import FLOW, NoiseSchedule, Predict


def conditional(
    model: Callable[..., Any],
    prompt: torch.Tensor,
    pooled: torch.Tensor,
    *,
    family: Family = STABLE_DIFFUSION_3,
    schedule: NoiseSchedule = FLOW,
) -> Predict:
    """The model's own answer for `prompt` float32 [B, tokens, width] and `pooled` float32 [B, width]."""

    def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return family.predict(model, state, schedule.timestep(t), prompt, pooled).float()

    return predict


def guided(positive: Predict, negative: Predict, scale: float) -> Predict:
    """negative + scale·(positive − negative); two evaluations, one after the other, for a lower memory peak."""

    def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        without = negative(state, t)
        return without + scale * (positive(state, t) - without)

    return predict
