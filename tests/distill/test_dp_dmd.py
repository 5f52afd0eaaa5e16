"""What may teach what: the meaning of the DP-DMD losses."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from distill import dp_dmd, flow, losses
from distill.dp_dmd import Method
from distill.flow import Velocity, shifted_grid

METHOD = Method(
    student_sigmas=shifted_grid(4, 3.0), teacher_sigmas=shifted_grid(30, 3.0), anchor_k=5, lambda_=0.05, norm="xt"
)


class PerStepStudent(nn.Module):
    """A velocity field with weights of its own for every noise level of the student's grid, so that a
    gradient shows which step it came to."""

    def __init__(self, sigmas: tuple[float, ...]) -> None:
        super().__init__()
        self.sigmas = sigmas[:-1]
        self.steps = nn.ModuleList(nn.Linear(6, 6) for _ in self.sigmas)

    def forward(self, state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        step = min(range(len(self.sigmas)), key=lambda i: abs(self.sigmas[i] - float(t[0])))
        return torch.tanh(self.steps[step](state))

    def gradients(self) -> list[float]:
        return [0.0 if step.weight.grad is None else float(step.weight.grad.abs().sum()) for step in self.steps]


def field(seed: int) -> Velocity:
    layer = nn.Linear(6, 6, bias=False).requires_grad_(False)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(seed))
    return lambda state, t: torch.tanh(layer(state)) * t[:, None]


def student_losses(student: nn.Module, method: Method) -> dp_dmd.StudentLosses:
    noise = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
    return dp_dmd.student_losses(student, field(1), field(2), noise, torch.Generator().manual_seed(4), method)


@pytest.fixture
def student() -> PerStepStudent:
    torch.manual_seed(0)
    return PerStepStudent(METHOD.student_sigmas)


def test_distribution_matching_does_not_reach_the_first_step(student):
    student_losses(student, METHOD).dmd.backward()
    first, *later = student.gradients()
    assert first == 0.0
    assert all(gradient > 0 for gradient in later)


def test_without_detach_it_reaches_every_step(student):
    student_losses(student, replace(METHOD, detach=False)).dmd.backward()
    assert all(gradient > 0 for gradient in student.gradients())


def test_diversity_reaches_the_first_step_only(student):
    student_losses(student, METHOD).diversity.backward()
    first, *later = student.gradients()
    assert first > 0
    assert later == [0.0, 0.0, 0.0]


def test_total_is_dmd_plus_lambda_times_diversity(student):
    result = student_losses(student, METHOD)
    torch.testing.assert_close(result.total, result.dmd + 0.05 * result.diversity)


def test_lambda_zero_is_plain_dmd_and_asks_for_no_anchor(student):
    asked = []
    noise = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))

    def teacher(state, t):
        asked.append(float(t[0]))
        return field(2)(state, t)

    method = replace(METHOD, lambda_=0.0, detach=False)
    result = dp_dmd.student_losses(student, field(1), teacher, noise, torch.Generator().manual_seed(4), method)
    assert len(asked) == 1, "the teacher is asked once, for the real score"
    result.total.backward()
    ours = [parameter.grad.clone() for parameter in student.parameters()]

    student.zero_grad()
    plain_dmd(student, field(1), field(2), noise, torch.Generator().manual_seed(4)).backward()
    for parameter, expected in zip(student.parameters(), ours, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=0)


def plain_dmd(student, critic, teacher, noise, generator):
    """DMD by the paper's Eq. 5, written out once more: all steps differentiated, σ per sample."""
    x = noise
    for now, after in zip(METHOD.student_sigmas[:-1], METHOD.student_sigmas[1:], strict=True):
        x = x + (after - now) * student(x, torch.full((8,), now))
    u = 0.001 + 0.998 * torch.rand(8, generator=generator)
    t = METHOD.noise_shift * u / (1 + (METHOD.noise_shift - 1) * u)
    s = t[:, None]
    with torch.no_grad():
        z = (1 - s) * x + s * torch.randn(8, 6, generator=generator)
        real, fake = z - s * teacher(z, t), z - s * critic(z, t)
        gradient = (fake - real) / (z - real).abs().mean(1, keepdim=True)
    return 0.5 * (x - (x - gradient).detach()).square().mean()


@pytest.mark.parametrize("anchor_k", [1, 3, 5, 10, 30])
def test_a_teacher_of_constant_velocity_is_the_target_for_every_anchor(anchor_k):
    velocity = torch.randn(8, 6, dtype=torch.float64)
    noise = torch.randn(8, 6, dtype=torch.float64)
    target = dp_dmd.anchor_target(lambda state, t: velocity, noise, replace(METHOD, anchor_k=anchor_k))
    torch.testing.assert_close(target, velocity, rtol=0, atol=1e-12)


def test_anchor_starts_at_the_students_own_noise_and_uses_the_teachers_grid():
    asked = []

    def teacher(state, t):
        asked.append((state.clone(), float(t[0])))
        return torch.zeros_like(state)

    noise = torch.randn(2, 6)
    dp_dmd.anchor_target(teacher, noise, METHOD)
    torch.testing.assert_close(asked[0][0], noise, rtol=0, atol=0)
    assert [t for _, t in asked] == pytest.approx(METHOD.teacher_sigmas[:5])


@pytest.mark.parametrize("norm", ["xt", "x0", "none"])
def test_dmd_gradient_points_from_real_to_fake(norm):
    x, state, t = torch.randn(4, 6), torch.randn(4, 6), torch.rand(4) * 0.9 + 0.05
    real, fake = torch.randn(4, 6), torch.randn(4, 6)
    x.requires_grad_()
    direction = losses.dmd_direction(x, state, t, real, fake, norm)
    losses.dmd_loss(x, direction).backward()
    torch.testing.assert_close(x.grad, direction / x.numel())
    raw = flow.clean(state, fake, t) - flow.clean(state, real, t)
    torch.testing.assert_close(torch.cosine_similarity(direction, raw), torch.ones(4))


def test_normaliser_xt_cancels_sigma():
    """(v_real − v_fake) / mean|v_real|, whatever the noise level."""
    state, real, fake = torch.randn(4, 6), torch.randn(4, 6), torch.randn(4, 6)
    expected = (real - fake) / real.abs().mean(1, keepdim=True)
    for level in (0.01, 0.5, 1.0):
        got = losses.dmd_direction(torch.randn(4, 6), state, torch.full((4,), level), real, fake, "xt")
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_noise_levels_differ_between_the_samples_of_a_batch():
    seen = []

    def critic(state, t):
        seen.append(t)
        return torch.zeros_like(state)

    noise = torch.randn(8, 6)
    dp_dmd.critic_loss(field(1), critic, noise, torch.Generator().manual_seed(0), METHOD)
    assert len(set(seen[0].tolist())) == 8


def test_critic_learns_the_velocity_of_the_students_samples(student):
    noise = torch.randn(64, 6)
    with torch.no_grad():
        _, x = dp_dmd.rollout(student, noise, METHOD)
    perfect = losses.critic_loss(noise - x, x, noise)
    assert perfect == 0.0
    assert losses.critic_loss(noise - x + 0.5, x, noise) == pytest.approx(0.25)


def test_every_step_of_the_default_grid_moves_the_sample():
    sigmas = shifted_grid(4, 3.0)
    assert sigmas == pytest.approx((1.0, 0.9, 0.75, 0.5, 0.0))
    assert min(now - after for now, after in pairwise(sigmas)) > 0.05
