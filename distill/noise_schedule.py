"""Noise levels and what a network's answer at them means: the one place where α, σ and timesteps are known.

A state is z_t = α(t)·x + σ(t)·ε. A schedule counts t in its family's own way:

* flow matching (paper Eq. 1): t = σ from 1 (noise) to 0 (data), α = 1 − t; the network is asked at 1000·t;
* DDPM (paper appendix C): t is the training timestep, T−1 … 0, α² = ᾱ_t, σ² = 1 − ᾱ_t; t = −1 is the data itself.

The network answers with the flow v = ε − x, with ε, or with v = α·ε − σ·x. States are float32; coefficients
are reckoned in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

Prediction = Literal["flow", "epsilon", "v"]
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(state float32 [B, …], t float32 [B]) → the network's answer float32 [B, …]."""


@dataclass(frozen=True)
class NoiseSchedule:
    """`alphas_cumprod` [T] holds ᾱ of every training timestep, for "epsilon" and "v"; None for "flow"."""

    prediction: Prediction = "flow"
    alphas_cumprod: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if (self.alphas_cumprod is None) != (self.prediction == "flow"):
            needs = "takes no" if self.prediction == "flow" else "needs"
            raise ValueError(f"prediction: {self.prediction} {needs} alphas_cumprod")
        if self.prediction == "epsilon" and self.alphas_cumprod is not None and not bool(self.alphas_cumprod.all()):
            raise ValueError("prediction: epsilon says nothing about the image where ᾱ = 0; such a teacher predicts v")

    @property
    def clean(self) -> float:
        """The t of noise-free data, with which every grid ends."""
        return 0.0 if self.alphas_cumprod is None else -1.0

    def levels(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(α, σ) at `t` [B]: float64 [B]."""
        if self.alphas_cumprod is None:
            return 1 - t.double(), t.double()
        table = torch.cat([torch.ones(1), self.alphas_cumprod.cpu()]).double().to(t.device)
        kept = table[t.long() + 1]
        return kept.sqrt(), (1 - kept).sqrt()

    def timestep(self, t: torch.Tensor) -> torch.Tensor:
        """What the network is told at `t` [B]."""
        return 1000 * t if self.alphas_cumprod is None else t

    def at(self, fraction: torch.Tensor) -> torch.Tensor:
        """The t at a `fraction` in [0, 1) of the way from data to noise: float32 [B]."""
        return fraction if self.alphas_cumprod is None else (fraction * len(self.alphas_cumprod)).floor()

    def noised(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """z_t; `t` [B] holds one noise level per sample."""
        alpha, sigma = self.levels(t)
        return _rows(alpha, x) * x + _rows(sigma, x) * noise

    def target(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What the network should answer for `noised(x, noise, t)`."""
        if self.prediction == "flow":
            return noise - x
        if self.prediction == "epsilon":
            return noise
        alpha, sigma = self.levels(t)
        return _rows(alpha, x) * noise - _rows(sigma, x) * x

    def to_x0(self, state: torch.Tensor, prediction: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The clean sample that `prediction` at `state` stands for (Eq. 39 and 40 for ε)."""
        of_state, of_answer = self._x0(*self.levels(t))
        return _rows(of_state, state) * state + _rows(of_answer, state) * prediction

    def to_noise(self, state: torch.Tensor, prediction: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The ε that `prediction` at `state` stands for."""
        of_state, of_answer = self._noise(*self.levels(t))
        return _rows(of_state, state) * state + _rows(of_answer, state) * prediction

    def x0_through(self, noise: torch.Tensor, state: torch.Tensor, t: float) -> torch.Tensor:
        """The clean x for which z_t of x and `noise` is `state`. For the flow, ε − x is the ṽ of Eq. 6."""
        alpha, sigma = self.levels(torch.tensor([t], dtype=torch.float64))
        return (state - sigma.item() * noise) / alpha.item()

    def step(self, state: torch.Tensor, prediction: torch.Tensor, now: float, after: float) -> torch.Tensor:
        """The ODE's state at noise level `after`: Euler for the flow, DDIM (η = 0) for ε and v."""
        grid = torch.tensor([now, after], dtype=torch.float64)
        (alpha, sigma), (next_alpha, next_sigma) = zip(*self.levels(grid), strict=True)
        x0, noise = self._x0(alpha, sigma), self._noise(alpha, sigma)
        of_state, of_answer = (next_alpha * a + next_sigma * b for a, b in zip(x0, noise, strict=True))
        return of_state.item() * state + of_answer.item() * prediction

    def solve(self, predict: Predict, state: torch.Tensor, grid: Sequence[float]) -> torch.Tensor:
        """Follow the ODE along `grid`, one evaluation a step."""
        for now, after in pairwise(grid):
            state = self.step(state, predict(state, full_t(now, state)), now, after)
        return state

    def _x0(self, alpha: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x = first·z + second·answer."""
        if self.prediction == "flow":
            return torch.ones_like(alpha), -sigma
        return (1 / alpha, -sigma / alpha) if self.prediction == "epsilon" else (alpha, -sigma)

    def _noise(self, alpha: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """ε = first·z + second·answer."""
        if self.prediction == "flow":
            return torch.ones_like(alpha), alpha
        return (torch.zeros_like(alpha), torch.ones_like(alpha)) if self.prediction == "epsilon" else (sigma, alpha)


FLOW = NoiseSchedule()


def full_t(t: float, like: torch.Tensor) -> torch.Tensor:
    """The same t for every sample of `like`: float32 [B]."""
    return torch.full((len(like),), t, device=like.device)


def shifted_grid(steps: int, shift: float, last: float | None = None) -> tuple[float, ...]:
    """Flow matching: `steps` noise levels from 1 down to `last` (default: an equal share, 1/steps, shifted), then 0.

    σ = shift·u / (1 + (shift−1)·u) for evenly spaced u. Every step of it moves the sample; the grid
    that diffusers makes of four steps ends at .009 and wastes its fourth evaluation.
    """
    final = 1 / steps if last is None else last
    u = torch.linspace(1, final, steps, dtype=torch.float64)
    return (*(shift * u / (1 + (shift - 1) * u)).tolist(), 0.0)


def trailing_grid(steps: int, training_steps: int = 1000) -> tuple[float, ...]:
    """DDPM: `steps` timesteps, evenly spaced, the first the noisiest of all, then −1 (diffusers' "trailing")."""
    return (*(round(training_steps * (1 - i / steps)) - 1.0 for i in range(steps)), -1.0)


def _rows(coefficient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """float64 [B] → [B, 1, …] in the type of `like`."""
    return coefficient.to(like.dtype).view(-1, *(1,) * (like.dim() - 1))
