"""Few-step samplers: how a step leads from one noise level to the next.

Each of them goes to α′·x + d·ε + c·noise, where x and ε are the clean sample and the noise that the prediction stands
for, and α′ and σ′ are the levels at which the step ends. They differ in d and c:

* `ode`: d = σ′, c = 0. Euler for the flow; DDIM with η = 0, which is also Euler in σ/α, for the others.
* `renoise`: d = 0, c = σ′. LCM, multistep consistency models, DMD2; SCM in the flow's own terms.
* `ancestral`: c² = σ′²·(1 − (α/α′)²) / σ², d² = σ′² − c². Euler ancestral, which is DDIM with η = 1.
* `tcd` (arXiv 2402.19159): d = (α′/α″)·σ″, c² = 1 − (α′/α″)², with the levels α″, σ″ below those of the next step.
"""

from collections.abc import Callable

import torch

from worker.sampling.noise_schedule import Coefficients, Levels, Prediction, mixed_coefficients, ode_coefficients

Steps = tuple[Coefficients, torch.Tensor]
"""Coefficients of state and prediction, and of fresh noise: float64 [steps] each."""
Sampler = Callable[[Prediction, Levels, Levels], Steps]
"""(kind of prediction, levels at which the steps begin, levels at which they end) → coefficients."""


def ode(prediction: Prediction, now: Levels, following: Levels) -> Steps:
    """Follow the ODE."""
    return ode_coefficients(prediction, now, following), torch.zeros_like(now[0])


def renoise(prediction: Prediction, now: Levels, following: Levels) -> Steps:
    """Go to the predicted clean sample, and back to the next level by fresh noise."""
    alpha, sigma = following
    return mixed_coefficients(prediction, now, alpha, torch.zeros_like(alpha)), sigma


def ancestral(prediction: Prediction, now: Levels, following: Levels) -> Steps:
    """Replace a part of the noise, as the reverse process of DDPM does. For α² + σ² = 1."""
    (alpha, sigma), (next_alpha, next_sigma) = now, following
    fresh = next_sigma / sigma * (1 - (alpha / next_alpha) ** 2).sqrt()
    kept = (next_sigma**2 - fresh**2).clamp(min=0).sqrt()
    return mixed_coefficients(prediction, now, next_alpha, kept), fresh


def tcd(below: Levels) -> Sampler:
    """Go to the levels `below` those at which each step ends, and back by fresh noise. For α² + σ² = 1."""

    def steps(prediction: Prediction, now: Levels, following: Levels) -> Steps:
        ratio = following[0] / below[0]
        state = mixed_coefficients(prediction, now, following[0], ratio * below[1])
        return state, (1 - ratio**2).clamp(min=0).sqrt()

    return steps


SAMPLERS: dict[str, Sampler] = {"ode": ode, "re-noise": renoise, "ancestral": ancestral}
"""The samplers that need no parameter, by their names in `sampling.json`."""
