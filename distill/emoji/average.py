"""The average of a network's weights over its training."""

from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of `model`, whose horizon grows to 1 / (1 − `decay`) updates."""
    return AveragedModel(model, multi_avg_fn=_growing(decay))


def _growing(decay: float) -> Callable[..., None]:
    @torch.no_grad()
    def average(averages, current, count) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averages, current, 1 - now)

    return average
