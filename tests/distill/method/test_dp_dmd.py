"""The DP-DMD losses: their values, and the steps that their gradients reach."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from distill.method import dp_dmd, losses
from tests.distill.method.per_step_student import METHOD, PerStepStudent, field, student_losses
from worker.sampling.noise_schedule import FLOW, NoiseSchedule, shifted_grid, trailing_grid


@pytest.fixture
def student() -> PerStepStudent:
    torch.manual_seed(0)
    return PerStepStudent(METHOD.student_grid)


def test_distribution_matching_does_not_reach_the_first_step(student):
    student_losses(student, METHOD).parts["dmd"].backward()
    first, *later = student.gradients()
    assert first == 0.0
    assert all(gradient > 0 for gradient in later)


def test_without_detach_it_reaches_every_step(student):
    student_losses(student, replace(METHOD, detach=False)).parts["dmd"].backward()
    assert all(gradient > 0 for gradient in student.gradients())


def test_diversity_reaches_the_first_step_only(student):
    student_losses(student, METHOD).parts["diversity"].backward()
    first, *later = student.gradients()
    assert first > 0
    assert later == [0.0, 0.0, 0.0]


def test_total_is_dmd_plus_lambda_times_diversity(student):
    result = student_losses(student, METHOD)
    torch.testing.assert_close(result.total, result.parts["dmd"] + 0.05 * result.parts["diversity"])


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
    for now, after in zip(METHOD.student_grid[:-1], METHOD.student_grid[1:], strict=True):
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
    torch.testing.assert_close(noise - target, velocity, rtol=0, atol=1e-12)


def test_anchor_starts_at_the_students_own_noise_and_uses_the_teachers_grid():
    asked = []

    def teacher(state, t):
        asked.append((state.clone(), float(t[0])))
        return torch.zeros_like(state)

    noise = torch.randn(2, 6)
    dp_dmd.anchor_target(teacher, noise, METHOD)
    torch.testing.assert_close(asked[0][0], noise, rtol=0, atol=0)
    assert [t for _, t in asked] == pytest.approx(METHOD.teacher_grid[:5])


@pytest.mark.parametrize("norm", ["xt", "x0", "none"])
def test_dmd_gradient_points_from_real_to_fake(norm):
    x, state, t = torch.randn(4, 6), torch.randn(4, 6), torch.rand(4) * 0.9 + 0.05
    real, fake = torch.randn(4, 6), torch.randn(4, 6)
    x.requires_grad_()
    x_real, x_fake = FLOW.to_x0(state, real, t), FLOW.to_x0(state, fake, t)
    direction = losses.dmd_direction(x, state, x_real, x_fake, norm)
    losses.dmd_loss(x, direction).backward()
    torch.testing.assert_close(x.grad, direction / x.numel())
    torch.testing.assert_close(torch.cosine_similarity(direction, x_fake - x_real), torch.ones(4))


def test_normaliser_xt_cancels_sigma():
    """(v_real − v_fake) / mean|v_real|, whatever the noise level."""
    state, real, fake = torch.randn(4, 6), torch.randn(4, 6), torch.randn(4, 6)
    expected = (real - fake) / real.abs().mean(1, keepdim=True)
    for level in (0.01, 0.5, 1.0):
        t = torch.full((4,), level)
        x_real, x_fake = FLOW.to_x0(state, real, t), FLOW.to_x0(state, fake, t)
        got = losses.dmd_direction(torch.randn(4, 6), state, x_real, x_fake, "xt")
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_noise_levels_differ_between_the_samples_of_a_batch():
    seen = []

    def critic(state, t):
        seen.append(t)
        return torch.zeros_like(state)

    dp_dmd.critic_loss(critic, torch.randn(8, 6), torch.Generator().manual_seed(0), METHOD)
    assert len(set(seen[0].tolist())) == 8


def test_critic_learns_the_velocity_of_the_students_samples(student):
    """A critic that answers ε − x for the student's own x has no loss."""
    noise = torch.randn(64, 6)
    x = dp_dmd.sample(student, noise, METHOD)
    assert not x.requires_grad
    assert torch.equal(x, dp_dmd.rollout(student, noise, METHOD)[1])

    def perfect(state, t):
        return (state - x) / t[:, None]

    assert dp_dmd.critic_loss(perfect, x, torch.Generator(), METHOD) < 1e-8

    def wrong(state, t):
        return perfect(state, t) + 0.5

    loss = dp_dmd.critic_loss(wrong, x, torch.Generator(), METHOD)
    assert loss.item() == pytest.approx(0.25, abs=1e-4)


def test_every_step_of_the_default_grid_moves_the_sample():
    sigmas = shifted_grid(4, 3.0)
    assert sigmas == pytest.approx((1.0, 0.9, 0.75, 0.5, 0.0))
    assert min(now - after for now, after in pairwise(sigmas)) > 0.05


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(
    ("grad_step", "exit_step", "reached"),
    [("last", None, [3]), ("random", 1, [1]), ("random", 2, [2]), ("random", 3, [3])],
)
def test_only_the_chosen_step_learns_by_distribution_matching(student, detach, grad_step, exit_step, reached):
    method = replace(METHOD, grad_step=grad_step, detach=detach)
    result = student_losses(student, method, exit_step=exit_step)
    result.parts["dmd"].backward(retain_graph=True)
    assert [step for step, gradient in enumerate(student.gradients()) if gradient > 0] == reached
    student.zero_grad()
    result.parts["diversity"].backward()
    assert [step for step, gradient in enumerate(student.gradients()) if gradient > 0] == [0]


def test_without_detach_a_random_step_may_be_the_first(student):
    method = replace(METHOD, grad_step="random", detach=False)
    drawn = {dp_dmd.draw_exit_step(method, torch.Generator().manual_seed(seed)) for seed in range(50)}
    assert drawn == {0, 1, 2, 3}
    student_losses(student, method, exit_step=0).parts["dmd"].backward()
    assert [gradient > 0 for gradient in student.gradients()] == [True, False, False, False]


def test_with_detach_a_random_step_is_never_the_first():
    method = replace(METHOD, grad_step="random")
    drawn = {dp_dmd.draw_exit_step(method, torch.Generator().manual_seed(seed)) for seed in range(50)}
    assert drawn == {1, 2, 3}


def test_step1_regression_is_the_diversity_loss_alone(student):
    asked = []

    def critic(state, t):
        asked.append(t)
        return state

    noise = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
    method = replace(METHOD, distribution_matching=False)
    result = dp_dmd.student_losses(student, critic, field(2), noise, torch.Generator(), method)
    result.total.backward()
    assert not asked
    assert [gradient > 0 for gradient in student.gradients()] == [True, False, False, False]
    velocity = student(noise, torch.ones(8))
    target = noise - dp_dmd.anchor_target(field(2), noise, method)
    torch.testing.assert_close(result.parts["diversity"], (velocity - target).square().mean())


def test_anchor_target_x0_is_the_teachers_estimate_there():
    """Eq. 39; at the end of the grid it is the teacher's own sample."""
    noise = torch.randn(4, 6)
    teacher, method = field(2), replace(METHOD, anchor_target="x0")
    anchor = FLOW.solve(teacher, noise, method.teacher_grid[:6])
    t = torch.full((4,), method.teacher_grid[5])
    expected = anchor - t[:, None] * teacher(anchor, t)
    torch.testing.assert_close(dp_dmd.anchor_target(teacher, noise, method), expected)
    whole = dp_dmd.anchor_target(teacher, noise, replace(method, anchor_k=30))
    torch.testing.assert_close(whole, FLOW.solve(teacher, noise, method.teacher_grid))


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_ddpm_routes_gradients_alike(prediction):
    """Appendix C: the diversity loss is Eq. 41, in the prediction's unit, and reaches the first step alone."""
    alphas = torch.linspace(0.9999, 0.0047, 1000)
    method = replace(
        METHOD,
        student_grid=trailing_grid(4),
        teacher_grid=trailing_grid(50),
        schedule=NoiseSchedule(prediction, alphas),
        anchor_target="x0",
        noise_shift=1.0,
    )
    student = PerStepStudent(method.student_grid)
    result = student_losses(student, method)
    result.parts["dmd"].backward(retain_graph=True)
    assert [gradient > 0 for gradient in student.gradients()] == [False, True, True, True]
    student.zero_grad()
    result.parts["diversity"].backward()
    assert [gradient > 0 for gradient in student.gradients()] == [True, False, False, False]
    noise, first = torch.randn(8, 6, generator=torch.Generator().manual_seed(3)), torch.full((8,), 999.0)
    target, alpha = dp_dmd.anchor_target(field(2), noise, method), alphas[-1]
    wanted = {
        "epsilon": (noise - alpha.sqrt() * target) / (1 - alpha).sqrt(),
        "v": (alpha.sqrt() * noise - target) / (1 - alpha).sqrt(),
    }
    expected = (student(noise, first) - wanted[prediction]).square().mean()
    torch.testing.assert_close(result.parts["diversity"], expected, rtol=1e-4, atol=1e-6)


def test_the_diversity_loss_weighs_alike_for_every_prediction():
    """One error of the first step's output, whatever the network predicts: one loss, and so one gradient."""
    alphas = torch.linspace(0.9999, 0.0047, 1000)
    found = []
    for prediction in ("flow", "epsilon", "v"):
        flow = prediction == "flow"
        schedule = NoiseSchedule(prediction, None if flow else alphas)
        grids = {} if flow else {"student_grid": trailing_grid(4), "teacher_grid": trailing_grid(50)}
        method = replace(METHOD, schedule=schedule, distribution_matching=False, anchor_target="x0", **grids)
        noise = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
        first = torch.full((8,), method.student_grid[0])
        right = schedule.target(dp_dmd.anchor_target(field(2), noise, method), noise, first)
        if not flow:  # the noise is all of the state, but for α·x
            (alpha, sigma), x = schedule.levels(first[:1]), dp_dmd.anchor_target(field(2), noise, method)
            eps = (noise - alpha.float() * x) / sigma.float()
            right = schedule.target(x, eps, first)
        off = (right + 0.1).requires_grad_()
        result = dp_dmd.student_losses(
            lambda state, t, off=off: off, field(1), field(2), noise, torch.Generator(), method
        )
        result.parts["diversity"].backward()
        found.append((result.parts["diversity"].item(), off.grad.norm().item()))
    assert [loss for loss, _ in found] == pytest.approx([0.01] * 3, rel=1e-2)
    assert [norm for _, norm in found] == pytest.approx([found[0][1]] * 3, rel=1e-2)
