"""Train the students of one run, all seeds at once, with the project's own losses."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill.method import dp_dmd, losses, perceptual
from distill.method.adversary import Adversary
from distill.method.dp_dmd import Hyperparameters, Term
from distill.replicate.mixture import CLASSES, Mixture
from distill.replicate.mixture_run import Run
from distill.replicate.seeded_attention import SeededAttention, SeededLinear, clip_each_seed
from worker.sampling.noise_schedule import FLOW, Predict, full_t


@dataclass(frozen=True)
class Size:
    """Size of the networks, their training and the measured samples; the same for every run."""

    seeds: int = 5
    width: int = 96
    batch: int = 16
    student_rate: float = 3e-3
    critic_rate: float = 3e-3
    ema: float = 0.98
    clip: float = 1.0
    samples: int = 64
    """Measured for each class and seed."""


PERCEPTUAL_WEIGHT = 1.0
GAN_WEIGHTS = (5e-3, 1e-2)
"""Weights of the adversarial loss in the student's turn and in the critic's: the trainer's defaults."""


def started(world: Mixture, size: Size, seed: int) -> SeededAttention:
    """Initial weights of students and critics."""
    torch.manual_seed(seed)
    return SeededAttention(world, size.seeds, size.width)


class Distillation:
    """The students of one run with their critics. After `train` has ended, `average` holds what is measured."""

    def __init__(self, world: Mixture, run: Run, size: Size, start: SeededAttention) -> None:
        self.world, self.run, self.size = world, run, size
        self.student, self.critic = copy.deepcopy(start), copy.deepcopy(start)
        self.average = AveragedModel(self.student, multi_avg_fn=get_ema_multi_avg_fn(size.ema))
        self.average.requires_grad_(False)
        torch.manual_seed(run.seed + 1)
        self.generator = torch.Generator().manual_seed(run.seed + 1)
        learners = list(self.critic.parameters())
        self.adversary: Adversary | None = None
        if run.method == "dmd-gan":
            head = SeededHead(size.seeds, size.width)
            self.adversary = Adversary(self.critic.middle, head, "softplus", 0.0, 0.01)
            learners += head.parameters()
        if run.method == "dmd-perceptual":
            self.features = FrozenFeatures(world.dimension)
        self.student_optimizer = torch.optim.AdamW(
            self.student.parameters(), size.student_rate, weight_decay=0.0, fused=True
        )
        self.critic_optimizer = torch.optim.AdamW(learners, size.critic_rate, weight_decay=0.0, fused=True)
        optimizers = [self.student_optimizer, self.critic_optimizer][: 2 if run.critic_updates else 1]
        self.rates = [torch.optim.lr_scheduler.LambdaLR(one, self._rate) for one in optimizers]

    def train(self) -> Iterator[int]:
        """Yields the number of student updates done, after each of them."""
        for index in range(self.run.updates):
            method = self.run.at(index, self.generator)
            self._critic_turns(method)
            self._student_turn(method)
            self.average.update_parameters(self.student)
            for rate in self.rates:
                rate.step()
            yield index + 1

    def _rate(self, done: int) -> float:
        """The share of the learning rates: falls to 0 over the second half, which makes the samples sharp."""
        return min(1.0, 2 * (1 - done / self.run.updates))

    def _critic_turns(self, method: Hyperparameters) -> None:
        turns, rollouts = self.run.critic_updates, self.run.critic_rollouts
        if turns == 0:
            return
        # The student stays as it is through all of them, so that all its samples can be made at once.
        all_labels, noise = self._draw(rollouts)
        samples = dp_dmd.sample(self.student.conditional(all_labels), noise, method)
        for turn in range(turns):
            labels, x = (self._batch(rows, turn % rollouts) for rows in (all_labels, samples))
            critic = self.critic.conditional(labels)
            loss = dp_dmd.critic_loss(critic, x, self.generator, method)
            if self.adversary:
                real = self._teacher_samples(torch.randn(x.shape, generator=self.generator), labels, method)
                loss = loss + GAN_WEIGHTS[1] * self.adversary.discriminator(critic, x, real, self.generator, method)
            _update(self.critic, self.critic_optimizer, self.size.seeds * loss, self.size.clip)

    def _student_turn(self, method: Hyperparameters) -> None:
        labels, noise = self._draw()
        student, terms = self.student.conditional(labels), self._baseline_terms(noise, labels, method)
        if self.run.anchor_guidance != self.run.guidance:
            terms["diversity"] = (method.lambda_, self._apart_from_anchor(student, noise, labels, method))
            method = replace(method, lambda_=0.0)
        found = dp_dmd.student_losses(
            student,
            self.critic.conditional(labels),
            self.world.guided(labels, self.run.guidance),
            noise,
            self.generator,
            method,
            terms=terms,
        )
        _update(self.student, self.student_optimizer, self.size.seeds * found.total, self.size.clip)

    def _baseline_terms(self, noise: torch.Tensor, labels: torch.Tensor, method: Hyperparameters) -> dict[str, Term]:
        """Loss terms that dmd-perceptual and dmd-gan add to distribution matching."""

        def near_the_teacher(x: torch.Tensor) -> torch.Tensor:
            return perceptual.distance(self.features, x, self._teacher_samples(noise, labels, method))

        if self.run.method == "dmd-perceptual":
            return {"perceptual": (PERCEPTUAL_WEIGHT, near_the_teacher)}
        if (adversary := self.adversary) is not None:
            critic = self.critic.conditional(labels)
            return {"adversarial": (GAN_WEIGHTS[0], lambda x: adversary.generator(critic, x, self.generator, method))}
        return {}

    def _apart_from_anchor(
        self, student: Predict, noise: torch.Tensor, labels: torch.Tensor, method: Hyperparameters
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """The diversity loss to an anchor whose teacher is guided otherwise than the one of distribution matching."""
        teacher = self.world.guided(labels, self.run.anchor_guidance)

        def apart(x: torch.Tensor) -> torch.Tensor:
            t = full_t(method.student_grid[0], noise)
            first = method.schedule.to_x0(noise, student(noise, t), t)
            return losses.diversity_loss(first, dp_dmd.anchor_target(teacher, noise, method))

        return apart

    @torch.no_grad()
    def _teacher_samples(self, noise: torch.Tensor, labels: torch.Tensor, method: Hyperparameters) -> torch.Tensor:
        return FLOW.solve(self.world.guided(labels, self.run.guidance), noise, method.teacher_grid)

    def _draw(self, batches: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes int64 [seeds · batches · batch] and noise float32 [seeds · batches · batch, D]."""
        rows = self.size.seeds * batches * self.size.batch
        labels = torch.randint(CLASSES, (rows,), generator=self.generator)
        return labels, torch.randn(rows, self.world.dimension, generator=self.generator)

    def _batch(self, rows: torch.Tensor, number: int) -> torch.Tensor:
        """One of the batches of `_draw`: [seeds · batch, …]."""
        return rows.unflatten(0, (self.size.seeds, -1, self.size.batch))[:, number].flatten(0, 1)


class SeededHead(nn.Module):
    """Features [seeds, B, width] → logits [seeds · B], as `distill.method.adversary.Head`."""

    def __init__(self, seeds: int, width: int) -> None:
        super().__init__()
        self.inner, self.outer = SeededLinear(seeds, width, width), SeededLinear(seeds, width, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        normal = F.layer_norm(features, features.shape[-1:])
        return self.outer(F.silu(self.inner(normal))).flatten()


class FrozenFeatures(nn.Module):
    """Two layers of random weights, for dmd-perceptual: [N, D] → feature maps [N, 256] and [N, 128]."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dimension, 256), nn.Linear(256, 128)
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        low = F.silu(2 * self.first(x))
        return [low, F.silu(2 * self.second(low))]


def _update(network: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor, clip: float) -> None:
    """One step down `loss`, which is the sum of the seeds' own losses, so that no seed's step depends on the others."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    clip_each_seed(network.parameters(), clip)
    optimizer.step()
