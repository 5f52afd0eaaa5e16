"""The adversarial term of `dmd-gan`: a head on the critic's features tells the teacher's samples from the student's.

"Real" are samples of the guided teacher, so that no data are needed (DMD2 takes real images).
"""

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from distill.method.dp_dmd import Method, draw_noise
from worker.sampling.noise_schedule import Predict

GanLoss = Literal["softplus", "hinge"]


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor, kind: GanLoss) -> torch.Tensor:
    """Of logits [B] that should be high for `real` and low for `fake`."""
    if kind == "softplus":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_loss(fake: torch.Tensor, kind: GanLoss) -> torch.Tensor:
    """Of the student, who wants its logits [B] high."""
    return F.softplus(-fake).mean() if kind == "softplus" else -fake.mean()


class Head(nn.Module):
    """Features [B, tokens, width] or [B, width, h, w] → logits [B], a mean over places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if features.dim() == 4:
            features = features.flatten(2).transpose(1, 2)
        return self.layers(features.float()).mean((1, 2))


class Adversary:
    """A head with the layer of the critic that it listens to."""

    def __init__(self, layer: nn.Module, head: nn.Module, kind: GanLoss, r1: float, r1_noise: float) -> None:
        self.head = head
        self.kind = kind
        self.r1 = r1
        self.r1_noise = r1_noise
        self._heard: torch.Tensor | None = None
        layer.register_forward_hook(self._hear)

    def discriminator(
        self, critic: Predict, fake: torch.Tensor, real: torch.Tensor, generator: torch.Generator, method: Method
    ) -> torch.Tensor:
        """The loss of head and critic on clean samples float32 [B, …] of student and teacher.

        R1, the slope of the logits at real samples, is taken as their change under a little noise (arXiv 2501.08316):
        the second derivative it avoids, fused attention does not have.
        """
        t, eps = draw_noise(real, method, generator)
        state = method.schedule.noised(real, eps, t)
        of_real = self._logits(critic, state, t)
        loss = discriminator_loss(of_real, self._noised_logits(critic, fake, generator, method), self.kind)
        if self.r1 == 0:
            return loss
        shake = torch.randn(state.shape, generator=generator, device=generator.device).to(state.device)
        shaken = self._logits(critic, state + self.r1_noise * shake, t)
        return loss + self.r1 * ((shaken - of_real) / self.r1_noise).square().mean()

    def generator(
        self, critic: Predict, fake: torch.Tensor, generator: torch.Generator, method: Method
    ) -> torch.Tensor:
        """The student's loss on its clean samples `fake`."""
        return generator_loss(self._noised_logits(critic, fake, generator, method), self.kind)

    def _noised_logits(
        self, critic: Predict, x: torch.Tensor, generator: torch.Generator, method: Method
    ) -> torch.Tensor:
        t, eps = draw_noise(x, method, generator)
        return self._logits(critic, method.schedule.noised(x, eps, t), t)

    def _logits(self, critic: Predict, state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        critic(state, t)
        heard, self._heard = self._heard, None
        assert heard is not None
        return self.head(heard)

    def _hear(self, layer: nn.Module, arguments: Any, output: torch.Tensor) -> None:
        self._heard = output
