"""The losses of DP-DMD (arXiv 2602.03139), pure functions on float32 tensors.

`x` is the student's final sample, `state` = z_t its noised copy at per-sample noise levels `t`;
`real` and `fake` are the velocities there of the guided teacher and of the fake score ("critic").
"""

from typing import Literal

import torch
from torch.nn import functional as F

from distill import flow

Normaliser = Literal["xt", "x0", "none"]


def anchor_velocity(noise: torch.Tensor, anchor: torch.Tensor, anchor_t: float) -> torch.Tensor:
    """Eq. 6, ṽ = (ε − z_t̃) / (1 − t̃): the constant velocity that leads from `noise` to the teacher's
    state `anchor` at noise level `anchor_t` in [0, 1)."""
    return (noise - anchor) / (1 - anchor_t)


def diversity_loss(first_velocity: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Eq. 7, ‖v_θ(ε, 1) − ṽ‖², as the mean over all elements."""
    return F.mse_loss(first_velocity, target)


@torch.no_grad()
def dmd_direction(
    x: torch.Tensor, state: torch.Tensor, t: torch.Tensor, real: torch.Tensor, fake: torch.Tensor, norm: Normaliser
) -> torch.Tensor:
    """The normalised distribution-matching gradient with respect to `x` (Eq. 5): x̂_fake − x̂_real.

    Each sample is divided by the mean magnitude of z_t − x̂_real ("xt": the authors' code, in which σ
    cancels), of x − x̂_real ("x0": DMD's own) or by nothing.
    """
    x_real, x_fake = flow.clean(state, real, t), flow.clean(state, fake, t)
    if norm == "none":
        return x_fake - x_real
    reference = state if norm == "xt" else x
    magnitude = (reference - x_real).abs().flatten(1).mean(1)
    return (x_fake - x_real) / flow.per_sample(magnitude.clamp_min(1e-6), x)


def dmd_loss(x: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient with respect to `x` is `direction` / number of elements."""
    return 0.5 * F.mse_loss(x, (x - direction).detach())


def critic_loss(fake: torch.Tensor, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Flow matching of the fake score on the student's samples: ‖v_fake(z_t, t) − (ε − x)‖² (Eq. 2)."""
    return F.mse_loss(fake, noise - x)
