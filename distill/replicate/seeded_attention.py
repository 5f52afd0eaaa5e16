"""The student of the mixture setting in several copies, one for each training seed, that are trained at once.

Rows of a batch are grouped by seed: the first B rows are the first copy's. No copy sees another's rows or weights.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from distill.replicate.mixture import CLASSES, MODES, Mixture, variance, velocity
from worker.sampling.noise_schedule import Predict

WAVES = 16
"""Frequencies of the embedding of the noise level."""
EMBEDDING = 32
OTHER_CLASS = -20.0
"""Initial log weight of the modes of other classes."""
START_NOISE = 0.05
"""Standard deviation of the noise added to the modes' means for the initial keys and values of each copy."""


class SeededLinear(nn.Module):
    """[seeds, B, inputs] → [seeds, B, outputs]."""

    def __init__(self, seeds: int, inputs: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(seeds, inputs, outputs) * scale / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class SeededAttention(nn.Module):
    """Velocity of the flow by attention over a memory of modes: the teacher's own formula, in which keys, values,
    biases are free, and a network adds to the logits what it makes of state, noise level and class.

    It starts as the unguided teacher, as a student starts from its teacher's weights.
    """

    waves: torch.Tensor

    def __init__(self, world: Mixture, seeds: int, width: int) -> None:
        super().__init__()
        self.seeds, slots = seeds, CLASSES * MODES
        self.register_buffer("waves", torch.exp(torch.linspace(0, math.log(100), WAVES)))
        means = world.means.expand(seeds, -1, -1)
        self.keys = nn.Parameter((means + START_NOISE * torch.randn_like(means)).mT.contiguous())
        self.values = nn.Parameter(means + START_NOISE * torch.randn_like(means))
        prior = torch.full((CLASSES, CLASSES, MODES), OTHER_CLASS)
        prior[torch.arange(CLASSES), torch.arange(CLASSES)] = world.log_weights
        self.prior = nn.Parameter(prior.flatten(1).expand(seeds, -1, -1).clone())
        self.time = SeededLinear(seeds, 2 * WAVES, EMBEDDING)
        self.label = nn.Parameter(torch.randn(seeds, CLASSES, EMBEDDING))
        self.gain = SeededLinear(seeds, EMBEDDING, 1, scale=0.0)
        self.modulation = SeededLinear(seeds, EMBEDDING, 2 * width)
        self.inner = SeededLinear(seeds, slots, width)
        self.middle = SeededLinear(seeds, width, width)
        self.outer = SeededLinear(seeds, width, slots, scale=0.0)

    def conditional(self, labels: torch.Tensor) -> Predict:
        """The velocity for the classes `labels` int64 [seeds · B]."""

        def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return velocity(state, self(state, t, labels), t)

        return predict

    def forward(self, state: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """[seeds · B, D] → E[the mode's mean], alike."""
        by_seed = (self.seeds, -1)
        state, t, labels = state.unflatten(0, by_seed), t.view(*by_seed, 1), labels.view(by_seed)
        alike = state @ self.keys
        # A projection of noise on a mean has the standard deviation √D: over that, it is of order one.
        unit = alike / math.sqrt(state.shape[-1])
        sharpness = (1 - t) / variance(t)
        logits = sharpness * (alike - (1 - t) / 2 * self.keys.square().sum(1, keepdim=True))
        seeds = torch.arange(self.seeds)[:, None]
        known = self._known(t, self.label[seeds, labels])
        scale, shift = self.modulation(known).chunk(2, dim=-1)
        hidden = F.silu(torch.addcmul(shift, self.inner(unit), 1 + scale))
        added = self.gain(known) * unit + self.outer(hidden + F.silu(self.middle(hidden)))
        return ((logits + self.prior[seeds, labels] + added).softmax(-1) @ self.values).flatten(0, 1)

    def _known(self, t: torch.Tensor, of_label: torch.Tensor) -> torch.Tensor:
        """Embed noise level [seeds, B, 1] and class: [seeds, B, EMBEDDING]."""
        phase = t * self.waves
        return F.silu(self.time(torch.cat([phase.sin(), phase.cos()], dim=-1)) + of_label)


@torch.no_grad()
def clip_each_seed(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Scale every copy's gradient down to norm `limit`, by its own norm."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0)
    factor = (limit / squares.sqrt().clamp_min(1e-12)).clamp_max(1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *(1,) * (gradient.dim() - 1)))
