"""Noise levels and the meaning of a prediction at them: the one place that knows α, σ and timesteps.

A state is z_t = α(t)·x + σ(t)·ε. A schedule counts t in its family's own way:

* flow matching (DP-DMD, arXiv 2602.03139, Eq. 1): t = σ from 1 (noise) to 0 (data), α = 1 − t; the network is told
  1000·t;
* DDPM (appendix C): t is the training timestep, T−1 … 0, α² = ᾱ_t, σ² = 1 − ᾱ_t; t = −1 is the data itself.

The network predicts the flow v = ε − x, or ε, or v = α·ε − σ·x, or the clean sample x itself. States are float32;
coefficients are computed in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

Prediction = Literal["flow", "epsilon", "v", "sample"]
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(state float32 [B, …], t float32 [B]) → the network's prediction float32 [B, …]."""
Levels = tuple[torch.Tensor, torch.Tensor]
"""(α, σ): float64 [B] each."""
Coefficients = tuple[torch.Tensor, torch.Tensor]
"""float64 [B] each, of the state and of the prediction in a sum of both."""


def flow_levels(t: torch.Tensor) -> Levels:
    """Return (α, σ) of flow matching at `t` = σ [B]."""
    return 1 - t.double(), t.double()


def ddpm_levels(t: torch.Tensor, alphas_cumprod: torch.Tensor) -> Levels:
    """Return (α, σ) at the training timesteps `t` [B], where −1 is the clean sample; `alphas_cumprod` [T] holds ᾱ."""
    kept = torch.cat([torch.ones(1), alphas_cumprod.cpu()]).double().to(t.device)[t.long() + 1]
    return kept.sqrt(), (1 - kept).sqrt()


def x0_coefficients(prediction: Prediction, now: Levels) -> Coefficients:
    """Express the clean sample x by state and prediction at the levels `now` (Eq. 39 and 40 for ε)."""
    alpha, sigma = now
    if prediction == "flow":
        return torch.ones_like(alpha), -sigma
    if prediction == "sample":
        return torch.zeros_like(alpha), torch.ones_like(alpha)
    return (1 / alpha, -sigma / alpha) if prediction == "epsilon" else (alpha, -sigma)


def noise_coefficients(prediction: Prediction, now: Levels) -> Coefficients:
    """Express the noise ε in the state by state and prediction at the levels `now`."""
    alpha, sigma = now
    if prediction == "flow":
        return torch.ones_like(alpha), alpha
    if prediction == "sample":
        return 1 / sigma, -alpha / sigma
    return (torch.zeros_like(alpha), torch.ones_like(alpha)) if prediction == "epsilon" else (sigma, alpha)


def mixed_coefficients(
    prediction: Prediction, now: Levels, of_x0: torch.Tensor, of_noise: torch.Tensor
) -> Coefficients:
    """Express `of_x0`·x + `of_noise`·ε (float64 [B] each) by state and prediction at the levels `now`."""
    x0, noise = x0_coefficients(prediction, now), noise_coefficients(prediction, now)
    return of_x0 * x0[0] + of_noise * noise[0], of_x0 * x0[1] + of_noise * noise[1]


def ode_coefficients(prediction: Prediction, now: Levels, following: Levels) -> Coefficients:
    """Express the ODE's state at the levels `following`: Euler for the flow, DDIM (η = 0) for the others."""
    if prediction == "flow":
        return torch.ones_like(now[0]), following[1] - now[1]
    return mixed_coefficients(prediction, now, *following)


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise levels of training, and the kind of prediction.

    `alphas_cumprod` [T] holds ᾱ of every training timestep, for all predictions but "flow".
    Raises ValueError when the two do not fit each other, and for epsilon at ᾱ = 0.
    """

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

    def levels(self, t: torch.Tensor) -> Levels:
        """Return (α, σ) at `t` [B]."""
        return flow_levels(t) if self.alphas_cumprod is None else ddpm_levels(t, self.alphas_cumprod)

    def timestep(self, t: torch.Tensor) -> torch.Tensor:
        """Return the timestep that the network is told at `t` [B]."""
        return 1000 * t if self.alphas_cumprod is None else t

    def t_of_fraction(self, fraction: torch.Tensor) -> torch.Tensor:
        """Return the t at a `fraction` in [0, 1) of the way from data to noise: float32 [B]."""
        return fraction if self.alphas_cumprod is None else (fraction * len(self.alphas_cumprod)).floor()

    def noised(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return z_t; `t` [B] holds one noise level per sample."""
        alpha, sigma = self.levels(t)
        return _rows(alpha, x) * x + _rows(sigma, x) * noise

    def target(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the perfect prediction for `noised(x, noise, t)`."""
        if self.prediction == "flow":
            return noise - x
        if self.prediction in ("epsilon", "sample"):
            return noise if self.prediction == "epsilon" else x
        alpha, sigma = self.levels(t)
        return _rows(alpha, x) * noise - _rows(sigma, x) * x

    def to_x0(self, state: torch.Tensor, prediction: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the clean sample that `prediction` at `state` stands for (Eq. 39 and 40 for ε)."""
        of_state, of_prediction = x0_coefficients(self.prediction, self.levels(t))
        return _rows(of_state, state) * state + _rows(of_prediction, state) * prediction

    def prediction_per_x0(self, t: float) -> float:
        """Return by how much the prediction changes when the clean sample it stands for changes by 1: 1/σ for the flow
        and v, α/σ for ε."""
        return 1 / abs(x0_coefficients(self.prediction, self.levels(torch.tensor([t], dtype=torch.float64)))[1].item())

    def x0_through(self, noise: torch.Tensor, state: torch.Tensor, t: float) -> torch.Tensor:
        """Return the clean x for which z_t of x and `noise` is `state`. For the flow, ε − x is the ṽ of Eq. 6."""
        alpha, sigma = self.levels(torch.tensor([t], dtype=torch.float64))
        return (state - sigma.item() * noise) / alpha.item()

    def step(self, state: torch.Tensor, prediction: torch.Tensor, now: float, after: float) -> torch.Tensor:
        """Return the ODE's state at noise level `after`: Euler for the flow, DDIM (η = 0) for ε and v."""
        levels = (self.levels(torch.tensor([t], dtype=torch.float64)) for t in (now, after))
        of_state, of_prediction = ode_coefficients(self.prediction, *levels)
        return of_state.item() * state + of_prediction.item() * prediction

    def solve(self, predict: Predict, state: torch.Tensor, grid: Sequence[float]) -> torch.Tensor:
        """Follow the ODE along `grid`, one evaluation a step."""
        for now, after in pairwise(grid):
            state = self.step(state, predict(state, full_t(now, state)), now, after)
        return state


FLOW = NoiseSchedule()


def full_t(t: float, like: torch.Tensor) -> torch.Tensor:
    """Return the same t for every sample of `like`: float32 [B]."""
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
