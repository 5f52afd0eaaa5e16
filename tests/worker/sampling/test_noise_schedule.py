"""One state, four ways to predict it: flow, ε, v and the sample, against each other and diffusers."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from worker.sampling.noise_schedule import FLOW, NoiseSchedule, shifted_grid, trailing_grid

DIFFUSERS_NAMES = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}


def ddim_scheduler(prediction: str) -> DDIMScheduler:
    """SDXL's alphas, sampled as a distilled student is."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=DIFFUSERS_NAMES[prediction],
        timestep_spacing="trailing",
        clip_sample=False,
    )


def schedule(prediction: str) -> NoiseSchedule:
    if prediction == "flow":
        return FLOW
    return NoiseSchedule(prediction, ddim_scheduler(prediction).alphas_cumprod)


def network(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(state.flip(-1)) * (1 + t.view(-1, 1, 1, 1).sin())


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v", "sample"])
def test_the_perfect_answer_gives_back_the_sample(prediction):
    levels = schedule(prediction)
    x, noise = torch.randn(6, 4, 8, 8, dtype=torch.float64), torch.randn(6, 4, 8, 8, dtype=torch.float64)
    t = levels.t_of_fraction(torch.tensor([0.0, 0.05, 0.3, 0.5, 0.9, 0.999]))
    state, answer = levels.noised(x, noise, t), levels.target(x, noise, t)
    torch.testing.assert_close(levels.to_x0(state, answer, t), x)


def test_flow_epsilon_and_v_see_the_same_x0_in_the_same_state():
    """At ᾱ of DDPM and the σ of the flow where both have the same share of noise, the states differ by a factor."""
    epsilon, v = schedule("epsilon"), schedule("v")
    x, noise, t = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64), torch.arange(5) * 249
    state = epsilon.noised(x, noise, t)
    alpha, sigma = epsilon.levels(t)
    flow_t = sigma / (alpha + sigma)
    flow_state = state / (alpha + sigma)[:, None]
    torch.testing.assert_close(flow_state, FLOW.noised(x, noise, flow_t))
    expected = epsilon.to_x0(state, epsilon.target(x, noise, t), t)
    torch.testing.assert_close(v.to_x0(state, v.target(x, noise, t), t), expected)
    torch.testing.assert_close(FLOW.to_x0(flow_state, FLOW.target(x, noise, flow_t), flow_t), expected)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
@pytest.mark.parametrize("steps", [2, 4, 8, 50])  # those that divide 1,000: for others diffusers misses its own grid
def test_ddpm_grid_and_steps_are_those_of_diffusers(prediction, steps):
    scheduler, levels = ddim_scheduler(prediction), schedule(prediction)
    scheduler.set_timesteps(steps)
    grid = trailing_grid(steps)
    assert grid == (*scheduler.timesteps.tolist(), -1.0)
    state = theirs = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for now, after in pairwise(grid):
        answer = network(theirs, torch.full((2,), now))
        ours = levels.step(theirs, answer, now, after)
        theirs = scheduler.step(answer, int(now), theirs).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(levels.solve(network, state, grid), theirs, rtol=1e-3, atol=1e-3)


def test_flow_steps_are_those_of_diffusers():
    scheduler, grid = FlowMatchEulerDiscreteScheduler(shift=1.0), shifted_grid(4, 3.0)
    scheduler.set_timesteps(sigmas=list(grid[:-1]))
    torch.testing.assert_close(scheduler.timesteps, FLOW.timestep(torch.tensor(grid[:-1])))
    noise = state = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        state = scheduler.step(network(state, timestep.expand(2) / 1000), timestep, state).prev_sample
    torch.testing.assert_close(FLOW.solve(network, noise, grid), state)


def test_sdxl_amplifies_an_error_in_epsilon_at_the_noisiest_step():
    """Eq. 41's loss in x weighs an error of ε by (1 − ᾱ)/ᾱ = 213.6 at T."""
    levels = schedule("epsilon")
    state, t = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([999.0])
    error = levels.to_x0(state, torch.ones_like(state), t).square().item()
    assert error == pytest.approx(213.6, abs=0.1)


def test_a_schedule_must_fit_its_prediction():
    with pytest.raises(ValueError, match="alphas_cumprod"):
        NoiseSchedule("epsilon")
    with pytest.raises(ValueError, match="no alphas_cumprod"):
        NoiseSchedule("flow", torch.ones(10))
    with pytest.raises(ValueError, match="ᾱ = 0"):
        NoiseSchedule("epsilon", torch.tensor([0.5, 0.0]))
