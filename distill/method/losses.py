"""The losses of DP-DMD (arXiv 2602.03139), pure functions on float32 tensors.

`x` is the student's final sample, `state` = z_t its noised copy. `x_real` and `x_fake` are the clean samples that the
guided teacher and the fake score predict from it; the code calls the fake score "critic" for short.
"""

from typing import Literal

import torch
from torch.nn import functional as F

Normaliser = Literal["xt", "x0", "none"]


def diversity_loss(first: torch.Tensor, target: torch.Tensor, prediction_per_x0: float = 1.0) -> torch.Tensor:
    """‖x_θ − x̃‖² (Eq. 41) in the unit of the network's prediction, as the mean over all elements.

    `prediction_per_x0` converts it: see `NoiseSchedule.prediction_per_x0`, at the first step's noise level. For the
    flow, where x = ε − v at t = 1, it is 1, and the loss is Eq. 7. For ε it is α/σ: without it an error of ε would
    count (σ/α)² times as much as one of v, 213.6 times on SDXL's schedule, and drown distribution matching.
    """
    return F.mse_loss(first, target) * prediction_per_x0**2


@torch.no_grad()
def dmd_direction(
    x: torch.Tensor, state: torch.Tensor, x_real: torch.Tensor, x_fake: torch.Tensor, norm: Normaliser
) -> torch.Tensor:
    """The normalised distribution-matching gradient with respect to `x` (Eq. 5): x̂_fake − x̂_real.

    Each sample is divided by the mean magnitude of z_t − x̂_real ("xt": the authors' code; for the flow σ cancels
    in it), of x − x̂_real ("x0": DMD's own) or by nothing.
    """
    if norm == "none":
        return x_fake - x_real
    reference = state if norm == "xt" else x
    magnitude = (reference - x_real).abs().flatten(1).mean(1).clamp_min(1e-6)
    return (x_fake - x_real) / magnitude.view(-1, *(1,) * (x.dim() - 1))


def dmd_loss(x: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient with respect to `x` is `direction` / number of elements."""
    return 0.5 * F.mse_loss(x, (x - direction).detach())


def critic_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The denoising loss of the fake score on noised samples of the student (Eq. 2 for the flow)."""
    return F.mse_loss(prediction, target)
