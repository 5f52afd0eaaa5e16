"""One student turn and one critic turn of every method, for any noise schedule.

DP-DMD: the student's first step learns the teacher's direction of the same noise (diversity); its output is
detached; the later steps learn by distribution matching (quality): l = l_DMD + λ·l_Div (Eq. 8).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from distill.method import losses
from distill.method.losses import Normaliser
from worker.sampling.noise_schedule import FLOW, NoiseSchedule, Predict, full_t

AnchorTarget = Literal["average_velocity", "x0"]
GradStep = Literal["all", "last", "random"]


@dataclass(frozen=True)
class Method:
    """What distinguishes a run: grids in the schedule's t, the anchor's number K of teacher steps, the weight λ.

    `anchor_target` "average_velocity" leads straight to the anchor (Eq. 6); "x0" is the teacher's clean estimate
    there (Eq. 39). `grad_step` says which steps learn by distribution matching, among those that may: "all",
    through each other; the "last"; or one drawn at "random", whose clean estimate then is the sample.
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
    schedule: NoiseSchedule = FLOW


Term = tuple[float, Callable[[torch.Tensor], torch.Tensor]]
"""A weight and a scalar loss of the student's final sample."""


@dataclass(frozen=True)
class Losses:
    """Of one batch: scalars, of which `total` is differentiated and the rest is telemetry, and the student's `sample`,
    float32 [B, …], detached."""

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]
    sample: torch.Tensor


def rollout(
    student: Predict, noise: torch.Tensor, method: Method, exit_step: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The student's steps from `noise` float32 [B, …]: (clean estimate of the first step, sample).

    The sample is the end of the grid, or the clean estimate of step `exit_step`. With `method.detach` no gradient
    of the sample reaches the first step; unless `method.grad_step` is "all", it reaches only the sample's own.
    """
    grid, schedule = method.student_grid, method.schedule
    final = len(grid) - 2 if exit_step is None else exit_step
    recording = torch.is_grad_enabled()
    state, first = noise, noise
    for index in range(final + 1):
        now = full_t(grid[index], state)
        with torch.set_grad_enabled(recording and (method.grad_step == "all" or index in (0, final))):
            prediction = student(state, now)
        if index == 0:
            first = schedule.to_x0(state, prediction, now)
        if index == exit_step:
            return first, schedule.to_x0(state, prediction, now)
        state = schedule.step(state, prediction, grid[index], grid[index + 1])
        if index < final and (method.grad_step != "all" or (index == 0 and method.detach)):
            state = state.detach()
    return first, state


def draw_exit_step(method: Method, generator: torch.Generator) -> int | None:
    """The step that ends a rollout: None for the whole grid. All ranks must draw the same."""
    if method.grad_step != "random":
        return None
    return int(torch.randint(int(method.detach), len(method.student_grid) - 1, (), generator=generator))


@torch.no_grad()
def anchor_target(teacher: Predict, noise: torch.Tensor, method: Method) -> torch.Tensor:
    """x̃, what the first step should see, after K of the guided teacher's own steps from the same noise."""
    grid, schedule = method.teacher_grid[: method.anchor_k + 1], method.schedule
    anchor = schedule.solve(teacher, noise, grid)
    if method.anchor_target == "average_velocity":
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
    method: Method,
    *,
    exit_step: int | None = None,
    terms: Mapping[str, Term] | None = None,
) -> Losses:
    """Eq. 8 and further `terms` for one batch of initial `noise` float32 [B, …]; `teacher` is guided."""
    if method.distribution_matching:
        first, x = rollout(student, noise, method, exit_step)
        dmd, telemetry = _distribution_matching(critic, teacher, x, generator, method)
        parts = {"dmd": dmd}
        telemetry["sample_std"] = x.detach().std()
    else:
        t = full_t(method.student_grid[0], noise)
        first = x = method.schedule.to_x0(noise, student(noise, t), t)
        parts, telemetry = {}, {}
    weights = {"dmd": 1.0}
    if method.lambda_ > 0:
        parts["diversity"] = losses.diversity_loss(first, anchor_target(teacher, noise, method))
        weights["diversity"] = method.lambda_
    for name, (weight, term) in (terms or {}).items():
        parts[name], weights[name] = term(x), weight
    total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return Losses(total, parts | telemetry, x.detach())


def _distribution_matching(
    critic: Predict, teacher: Predict, x: torch.Tensor, generator: torch.Generator, method: Method
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Eq. 5 as a loss, and how far apart the two scores are."""
    schedule = method.schedule
    with torch.no_grad():
        t, eps = draw_noise(x, method, generator)
        state = schedule.noised(x, eps, t)
        real, fake = teacher(state, t), critic(state, t)
        x_real, x_fake = schedule.to_x0(state, real, t), schedule.to_x0(state, fake, t)
        direction = losses.dmd_direction(x, state, x_real, x_fake, method.norm)
        cosine = torch.cosine_similarity(real.flatten(1), fake.flatten(1)).mean()
        gap = ((real - fake).flatten(1).norm(dim=1) / real.flatten(1).norm(dim=1)).mean()
        magnitudes = {"teacher_rms": real.square().mean().sqrt(), "critic_rms": fake.square().mean().sqrt()}
    return losses.dmd_loss(x, direction), {"cosine": cosine, "relative_gap": gap, **magnitudes}


@torch.no_grad()
def sample(student: Predict, noise: torch.Tensor, method: Method, exit_step: int | None = None) -> torch.Tensor:
    """What the critic learns from: the student's own samples."""
    return rollout(student, noise, method, exit_step)[1]


def critic_loss(critic: Predict, x: torch.Tensor, generator: torch.Generator, method: Method) -> torch.Tensor:
    """The fake score's loss on the student's samples `x`, under fresh noise of a level of its own for each."""
    t, eps = draw_noise(x, method, generator)
    prediction = critic(method.schedule.noised(x, eps, t), t)
    return losses.critic_loss(prediction, method.schedule.target(x, eps, t))


def draw_noise(x: torch.Tensor, method: Method, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A noise level for each sample, at the fraction s·u / (1 + (s−1)·u) of the way for u uniform in
    `method.noise_range`: float32 [B]; and noise like `x`. Both are drawn on the generator's device."""
    low, high = method.noise_range
    u = low + (high - low) * torch.rand(len(x), generator=generator, device=generator.device)
    eps = torch.randn(x.shape, generator=generator, device=generator.device)
    fraction = method.noise_shift * u / (1 + (method.noise_shift - 1) * u)
    return method.schedule.t_of_fraction(fraction).to(x.device), eps.to(x.device)
