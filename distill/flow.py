"""Straight-line noising and its sampler (paper Eq. 1 and 2): z_t = (1−t)·x + t·ε, v = ε − x.

t = σ runs from 1 (noise) to 0 (data); a model is asked at timestep 1000·t. All states are float32.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(state float32 [B, …], t float32 [B]) → velocity float32 [B, …]."""


def shifted_grid(steps: int, shift: float, last: float | None = None) -> tuple[float, ...]:
    """`steps` noise levels from 1 down to `last` (default: an equal share, 1/steps, shifted), then 0.

    σ = shift·u / (1 + (shift−1)·u) for evenly spaced u. Every step of it moves the sample; the grid
    that diffusers makes of four steps ends at .009 and wastes its fourth evaluation.
    """
    final = 1 / steps if last is None else last
    u = torch.linspace(1, final, steps, dtype=torch.float64)
    return (*(shift * u / (1 + (shift - 1) * u)).tolist(), 0.0)


def noised(x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """z_t (Eq. 1); `t` float32 [B] holds one noise level per sample."""
    t = per_sample(t, x)
    return (1 - t) * x + t * noise


def clean(state: torch.Tensor, velocity: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The x that `velocity` predicts at noise level `t`: z_t − t·v."""
    return state - per_sample(t, state) * velocity


def euler(velocity: Velocity, state: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """Follow dz/dt = v from sigmas[0] to sigmas[-1], one evaluation a step."""
    for now, after in pairwise(sigmas):
        state = state + (after - now) * velocity(state, state.new_full((len(state),), now))
    return state


def per_sample(t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[B] → [B, 1, …] to multiply with `like`."""
    return t.view(-1, *(1,) * (like.dim() - 1))
