"""One student turn and one critic turn of DP-DMD, for a flow-matching family.

The student's first step learns the teacher's direction of the same noise (diversity); its output is
detached; the later steps learn by distribution matching (quality): l = l_DMD + λ·l_Div (Eq. 8).
"""

from dataclasses import dataclass

import torch

from distill import flow, losses
from distill.flow import Velocity
from distill.losses import Normaliser


@dataclass(frozen=True)
class Method:
    """What distinguishes a run: grids as σ from 1 to 0, the anchor's number K of teacher steps, the weight λ."""

    student_sigmas: tuple[float, ...]
    teacher_sigmas: tuple[float, ...]
    anchor_k: int
    lambda_: float
    detach: bool = True
    norm: Normaliser = "xt"
    noise_shift: float = 3.0


@dataclass(frozen=True)
class StudentLosses:
    """Scalar tensors. `total` is what is differentiated; the rest is telemetry."""

    total: torch.Tensor
    dmd: torch.Tensor
    diversity: torch.Tensor
    cosine: torch.Tensor
    relative_gap: torch.Tensor


def rollout(student: Velocity, noise: torch.Tensor, method: Method) -> tuple[torch.Tensor, torch.Tensor]:
    """All student steps from `noise` float32 [B, …]: (the first step's velocity, the final sample).

    With `method.detach` no gradient of the final sample reaches the first step.
    """
    sigmas = method.student_sigmas
    first = student(noise, noise.new_full((len(noise),), sigmas[0]))
    state = noise + (sigmas[1] - sigmas[0]) * first
    return first, flow.euler(student, state.detach() if method.detach else state, sigmas[1:])


@torch.no_grad()
def anchor_target(teacher: Velocity, noise: torch.Tensor, method: Method) -> torch.Tensor:
    """ṽ of Eq. 6 after K of the guided teacher's own steps from the same noise."""
    grid = method.teacher_sigmas[: method.anchor_k + 1]
    return losses.anchor_velocity(noise, flow.euler(teacher, noise, grid), grid[-1])


def student_losses(
    student: Velocity,
    critic: Velocity,
    teacher: Velocity,
    noise: torch.Tensor,
    generator: torch.Generator,
    method: Method,
) -> StudentLosses:
    """Eq. 8 for one batch of initial `noise` float32 [B, …]; `teacher` is guided, the others are not."""
    first, x = rollout(student, noise, method)
    if method.lambda_ > 0:
        diversity = losses.diversity_loss(first, anchor_target(teacher, noise, method))
    else:
        diversity = first.new_zeros(())
    with torch.no_grad():
        t, eps = _noise(x, method.noise_shift, generator)
        state = flow.noised(x, eps, t)
        real, fake = teacher(state, t), critic(state, t)
        direction = losses.dmd_direction(x, state, t, real, fake, method.norm)
        cosine = torch.cosine_similarity(real.flatten(1), fake.flatten(1)).mean()
        relative_gap = ((real - fake).flatten(1).norm(dim=1) / real.flatten(1).norm(dim=1)).mean()
    dmd = losses.dmd_loss(x, direction)
    return StudentLosses(dmd + method.lambda_ * diversity, dmd, diversity, cosine, relative_gap)


def critic_loss(
    student: Velocity, critic: Velocity, noise: torch.Tensor, generator: torch.Generator, method: Method
) -> torch.Tensor:
    """The fake score's flow-matching loss on fresh student samples."""
    with torch.no_grad():
        _, x = rollout(student, noise, method)
    t, eps = _noise(x, method.noise_shift, generator)
    return losses.critic_loss(critic(flow.noised(x, eps, t), t), x, eps)


def _noise(x: torch.Tensor, shift: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A noise level for each sample, t = s·u / (1 + (s−1)·u) with u uniform in [0.001, 0.999): float32 [B];
    and noise like `x`. Both are drawn on the generator's device and moved to that of `x`."""
    u = 0.001 + 0.998 * torch.rand(len(x), generator=generator, device=generator.device)
    eps = torch.randn(x.shape, generator=generator, device=generator.device)
    return (shift * u / (1 + (shift - 1) * u)).to(x.device), eps.to(x.device)
