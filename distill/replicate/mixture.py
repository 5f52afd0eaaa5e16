"""A world whose teacher is known in closed form: a Gaussian mixture with classes for prompts.

Ten classes of eight modes each. The modes' means are drawn from N(0, I), their weights within a class are 1 : 2 : … : 8
in a random order, the standard deviation within a mode is 0.1. So for every sample it is known which mode of which
class it shows, and whether it shows one at all.
"""

import math
from dataclasses import dataclass

import torch

from worker.sampling.noise_schedule import Predict

CLASSES, MODES = 10, 8
WITHIN = 0.1
"""Standard deviation within a mode, in each dimension."""
RADIUS = 1.5
"""A sample is sharp within this many times √D·WITHIN of a mode's mean. Data lie at 1, the next mode at 14."""


@dataclass(frozen=True)
class Mixture:
    """`means` float32 [CLASSES · MODES, D], class after class; `log_weights` float32 [CLASSES, MODES].

    The exponentials of the weights sum to 1 within a class. Classes are equally frequent.
    """

    means: torch.Tensor
    log_weights: torch.Tensor

    @classmethod
    def drawn(cls, dimension: int, seed: int = 0) -> "Mixture":
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(CLASSES * MODES, dimension, generator=generator)
        orders = torch.stack([torch.randperm(MODES, generator=generator) for _ in range(CLASSES)])
        return cls(means, torch.log((orders + 1) / (MODES * (MODES + 1) / 2)))

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    @property
    def radius(self) -> float:
        return RADIUS * math.sqrt(self.dimension) * WITHIN

    def sample(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Data of the classes `labels` int64 [N]: float32 [N, D]."""
        modes = torch.multinomial(self.log_weights[labels].exp(), 1, generator=generator)[:, 0]
        noise = torch.randn(len(labels), self.dimension, generator=generator)
        return self.means[labels * MODES + modes] + WITHIN * noise

    def conditional(self, labels: torch.Tensor) -> Predict:
        """The velocity E[ε − x | z_t, class] of the classes `labels` int64 [N]."""
        return self.guided(labels, 1.0)

    def guided(self, labels: torch.Tensor, scale: float) -> Predict:
        """Classifier-free guidance: v(z) + scale·(v(z | class) − v(z)), where v(z) knows all classes."""

        def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            # Both velocities are linear in the weighted mean of the modes with the same factors, so their
            # combination is that of the weights.
            logits = self._logits(state, t).unflatten(1, (CLASSES, MODES))
            shares = ((1 - scale) * logits.flatten(1).softmax(1)).unflatten(1, (CLASSES, MODES))
            rows = torch.arange(len(labels))
            shares[rows, labels] += scale * logits[rows, labels].softmax(1)
            return velocity(state, shares.flatten(1) @ self.means, t)

        return predict

    def nearest(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mode, int64 [N], whose mean is nearest to each of `samples` [N, D], and how far it is, [N]."""
        distance, mode = torch.cdist(samples, self.means).min(1)
        return mode, distance

    def _logits(self, state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """log p(mode, z_t) of all modes but for a constant: [N, CLASSES · MODES]."""
        kept, spread = 1 - t[:, None], variance(t)[:, None]
        squared = kept.square() * self.means.square().sum(1) - 2 * kept * (state @ self.means.T)
        return self.log_weights.flatten() - squared / (2 * spread)


def velocity(state: torch.Tensor, mean: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """E[ε − x | z_t] when E[the mode's mean | z_t] is `mean`; both [N, D], `t` [N] above 0.

    Within a mode of mean μ, E[x | z_t] = μ + a·(z_t − (1−t)·μ), a = s²(1−t) / (s²(1−t)² + t²), and ε − x = (z_t − x)/t.
    """
    t = t[:, None]
    pull = WITHIN**2 * (1 - t) / variance(t)
    return ((1 - pull) * state - (1 - (1 - t) * pull) * mean) / t


def variance(t: torch.Tensor) -> torch.Tensor:
    """Variance of z_t within a mode, in each dimension."""
    return WITHIN**2 * (1 - t).square() + t.square()
