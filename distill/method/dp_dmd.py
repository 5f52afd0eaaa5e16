"""The losses of the student and of the fake score ("critic") for one batch, for any noise schedule.

DP-DMD: the student's first step learns the teacher's direction from the same noise (diversity), and its output is
detached. The later steps learn by distribution matching (quality): l = l_DMD + λ·l_Div (Eq. 8).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from distill.method import losses
from distill.method.losses import Normaliser
from worker.sampling.noise_schedule import FLOW, NoiseSchedule, Predict, full_t

AnchorTarget = Literal["average_velocity", "x0"]
GradStep = Literal["all", "last", "random"]


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters of the losses.

    The grids hold levels in the schedule's t. `anchor_k` is K, the number of teacher steps to the anchor. `lambda_` is
    λ, the weight of the diversity loss. `anchor_target` "average_velocity" leads straight to the anchor (Eq. 6); "x0"
    is the teacher's clean estimate there (Eq. 39). `detach` cuts the gradient of distribution matching after the first
    step. `grad_step` selects the steps that learn by distribution matching: "all", through each other; the "last"; or
    one drawn at "random", whose clean estimate then is the sample. `critic_noise_range` replaces `noise_range` for the
    fake score.
    """

    student_grid: tuple[float, ...]
    teacher_grid: tuple[float, ...]
    anchor_k: int
    lambda_: float
    detach: bool = True
    distribution_matching: bool = True
    norm: Normaliser = "xt"
    anchor_target: AnchorTarget = "average_velocity"
    grad_step: GradStep = "all"
    noise_shift: float = 3.0
    noise_range: tuple[float, float] = (0.001, 0.999)
    critic_noise_range: tuple[float, float] | None = None
    schedule: NoiseSchedule = FLOW


Term = tuple[float, Callable[[torch.Tensor], torch.Tensor]]
"""A weight and a scalar loss of the student's final sample."""


@dataclass(frozen=True)
class Losses:
    """The losses of one batch: `total`, a scalar to differentiate; `parts`, scalars for telemetry; and the student's
    `sample`, float32 [B, …], detached."""

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]
    sample: torch.Tensor


def rollout(
    student: Predict, noise: torch.Tensor, hparams: Hyperparameters, exit_step: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the student's steps from `noise` float32 [B, …]; returns (clean estimate of the first step, sample).

    The sample is the end of the grid, or the clean estimate of step `exit_step`. With `hparams.detach` no gradient of
    the sample reaches the first step. Unless `hparams.grad_step` is "all", it reaches only the step that ends the
    rollout.
    """
    grid, schedule = hparams.student_grid, hparams.schedule
    final = len(grid) - 2 if exit_step is None else exit_step
    recording = torch.is_grad_enabled()
    state, first = noise, noise
    for index in range(final + 1):
        now = full_t(grid[index], state)
        with torch.set_grad_enabled(recording and (hparams.grad_step == "all" or index in (0, final))):
            prediction = student(state, now)
        if index == 0:
            first = schedule.to_x0(state, prediction, now)
        if index == exit_step:
            return first, schedule.to_x0(state, prediction, now)
        state = schedule.step(state, prediction, grid[index], grid[index + 1])
        if index < final and (hparams.grad_step != "all" or (index == 0 and hparams.detach)):
            state = state.detach()
    return first, state


def draw_exit_step(hparams: Hyperparameters, generator: torch.Generator) -> int | None:
    """Draw the step that ends a rollout; None stands for the whole grid. All ranks must draw the same."""
    if hparams.grad_step != "random":
        return None
    return int(torch.randint(int(hparams.detach), len(hparams.student_grid) - 1, (), generator=generator))


@torch.no_grad()
def anchor_target(teacher: Predict, noise: torch.Tensor, hparams: Hyperparameters) -> torch.Tensor:
    """x̃ float32 [B, …], the first step's target, after K steps of the guided teacher from the same `noise`."""
    grid, schedule = hparams.teacher_grid[: hparams.anchor_k + 1], hparams.schedule
    anchor = schedule.solve(teacher, noise, grid)
    if hparams.anchor_target == "average_velocity":
        return schedule.x0_through(noise, anchor, grid[-1])
    if grid[-1] == schedule.clean:
        return anchor
    t = full_t(grid[-1], anchor)
    return schedule.to_x0(anchor, teacher(anchor, t), t)


def student_losses(
    student: Predict,
    critic: Predict,
    teacher: Predict,
    noise: torch.Tensor,
    generator: torch.Generator,
    hparams: Hyperparameters,
    *,
    exit_step: int | None = None,
    terms: Mapping[str, Term] | None = None,
) -> Losses:
    """Eq. 8 and further `terms` for one batch of initial `noise` float32 [B, …]; `teacher` is guided.

    `generator` draws the noise levels and the noise of distribution matching.
    """
    if hparams.distribution_matching:
        first, x = rollout(student, noise, hparams, exit_step)
        dmd, telemetry = _distribution_matching(critic, teacher, x, generator, hparams)
        parts = {"dmd": dmd}
        telemetry["sample_std"] = x.detach().std()
    else:
        t = full_t(hparams.student_grid[0], noise)
        first = x = hparams.schedule.to_x0(noise, student(noise, t), t)
        parts, telemetry = {}, {}
    weights = {"dmd": 1.0}
    if hparams.lambda_ > 0:
        unit = hparams.schedule.prediction_per_x0(hparams.student_grid[0])
        parts["diversity"] = losses.diversity_loss(first, anchor_target(teacher, noise, hparams), unit)
        weights["diversity"] = hparams.lambda_
    for name, (weight, term) in (terms or {}).items():
        parts[name], weights[name] = term(x), weight
    total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return Losses(total, parts | telemetry, x.detach())


def _distribution_matching(
    critic: Predict, teacher: Predict, x: torch.Tensor, generator: torch.Generator, hparams: Hyperparameters
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Eq. 5 as a loss, and telemetry: how far apart the teacher's score and the fake score are."""
    schedule = hparams.schedule
    with torch.no_grad():
        t, eps = draw_noise(x, hparams, generator)
        state = schedule.noised(x, eps, t)
        real, fake = teacher(state, t), critic(state, t)
        x_real, x_fake = schedule.to_x0(state, real, t), schedule.to_x0(state, fake, t)
        direction = losses.dmd_direction(x, state, x_real, x_fake, hparams.norm)
        cosine = torch.cosine_similarity(real.flatten(1), fake.flatten(1)).mean()
        gap = ((real - fake).flatten(1).norm(dim=1) / real.flatten(1).norm(dim=1)).mean()
        magnitudes = {"teacher_rms": real.square().mean().sqrt(), "critic_rms": fake.square().mean().sqrt()}
    return losses.dmd_loss(x, direction), {"cosine": cosine, "relative_gap": gap, **magnitudes}


@torch.no_grad()
def sample(
    student: Predict, noise: torch.Tensor, hparams: Hyperparameters, exit_step: int | None = None
) -> torch.Tensor:
    """Sample the student, float32 [B, …], for the fake score to learn from."""
    return rollout(student, noise, hparams, exit_step)[1]


def critic_loss(critic: Predict, x: torch.Tensor, generator: torch.Generator, hparams: Hyperparameters) -> torch.Tensor:
    """The fake score's loss on the student's samples `x` float32 [B, …], each under noise of its own level."""
    t, eps = draw_noise(x, replace(hparams, noise_range=hparams.critic_noise_range or hparams.noise_range), generator)
    prediction = critic(hparams.schedule.noised(x, eps, t), t)
    return losses.critic_loss(prediction, hparams.schedule.target(x, eps, t))


def draw_noise(
    x: torch.Tensor, hparams: Hyperparameters, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a noise level t float32 [B] for each sample, and noise like `x`.

    The level lies at the fraction s·u / (1 + (s−1)·u) of the schedule, for u uniform in `hparams.noise_range` and
    s = `hparams.noise_shift`. Both are drawn on the generator's device.
    """
    low, high = hparams.noise_range
    u = low + (high - low) * torch.rand(len(x), generator=generator, device=generator.device)
    eps = torch.randn(x.shape, generator=generator, device=generator.device)
    fraction = hparams.noise_shift * u / (1 + (hparams.noise_shift - 1) * u)
    return hparams.schedule.t_of_fraction(fraction).to(x.device), eps.to(x.device)
