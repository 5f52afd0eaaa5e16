"""The adversarial losses of `dmd-gan`: a head on the fake score's features is the discriminator.

The real samples are the guided teacher's, so that no data are needed (DMD2 takes real images).
"""

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from distill.method.dp_dmd import Hyperparameters, draw_noise
from worker.sampling.noise_schedule import Predict

GanLoss = Literal["softplus", "hinge"]


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor, kind: GanLoss) -> torch.Tensor:
    """The discriminator's loss on its logits [B] for `real` samples, which should be high, and for `fake` ones."""
    if kind == "softplus":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_loss(fake: torch.Tensor, kind: GanLoss) -> torch.Tensor:
    """The student's loss on the discriminator's logits [B] for its samples, which should be high."""
    return F.softplus(-fake).mean() if kind == "softplus" else -fake.mean()


class Head(nn.Module):
    """Map features [B, tokens, width] or [B, width, h, w] to logits [B], averaged over all positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if features.dim() == 4:
            features = features.flatten(2).transpose(1, 2)
        return self.layers(features.float()).mean((1, 2))


class Adversary:
    """A discriminator: `head` on the output of `layer`, a layer of the fake score's network."""

    def __init__(self, layer: nn.Module, head: nn.Module, kind: GanLoss, r1: float, r1_noise: float) -> None:
        self.head = head
        self.kind = kind
        self.r1 = r1
        self.r1_noise = r1_noise
        self._features: torch.Tensor | None = None
        layer.register_forward_hook(self._keep_features)

    def discriminator(
        self,
        critic: Predict,
        fake: torch.Tensor,
        real: torch.Tensor,
        generator: torch.Generator,
        hparams: Hyperparameters,
    ) -> torch.Tensor:
        """The loss of head and fake score on clean samples float32 [B, …]: the student's `fake`, the teacher's `real`.

        R1, the squared gradient of the logits at real samples, is approximated by their change under a little noise
        (arXiv 2501.08316). So it needs no second derivative, which fused attention does not have.
        """
        t, eps = draw_noise(real, hparams, generator)
        state = hparams.schedule.noised(real, eps, t)
        logits = self._logits(critic, state, t)
        loss = discriminator_loss(logits, self._noised_logits(critic, fake, generator, hparams), self.kind)
        if self.r1 == 0:
            return loss
        direction = torch.randn(state.shape, generator=generator, device=generator.device).to(state.device)
        nearby = self._logits(critic, state + self.r1_noise * direction, t)
        return loss + self.r1 * ((nearby - logits) / self.r1_noise).square().mean()

    def generator(
        self, critic: Predict, fake: torch.Tensor, generator: torch.Generator, hparams: Hyperparameters
    ) -> torch.Tensor:
        """The student's loss on its clean samples `fake`."""
        return generator_loss(self._noised_logits(critic, fake, generator, hparams), self.kind)

    def _noised_logits(
        self, critic: Predict, x: torch.Tensor, generator: torch.Generator, hparams: Hyperparameters
    ) -> torch.Tensor:
        t, eps = draw_noise(x, hparams, generator)
        return self._logits(critic, hparams.schedule.noised(x, eps, t), t)

    def _logits(self, critic: Predict, state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        critic(state, t)
        features, self._features = self._features, None
        assert features is not None
        return self.head(features)

    def _keep_features(self, layer: nn.Module, arguments: Any, output: torch.Tensor) -> None:
        self._features = output
