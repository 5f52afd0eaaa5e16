"""Few-step samplers as tables of coefficients: x_next = a·x + b·model(x, t) + c·noise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import cast

import torch

from jobs.noise_levels import entry_step
from jobs.sampling_contract import SamplingContract
from worker.sampling.guidance import Guide, Scale, classifier_free_guidance
from worker.sampling.noise_schedule import Levels, Prediction, ddpm_levels, flow_levels, x0_coefficients
from worker.sampling.samplers import SAMPLERS, Sampler, ode, tcd

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents fp32 [B, C, H, W], timesteps fp32 [B]) → the network's prediction [B, C, H, W]."""


@dataclass(frozen=True)
class StepTable:
    """One row of coefficients for each step of a sampler; fields are fp32 tensors [steps], unless said otherwise.

    Step i calls the network at `timesteps[i]` and gives x_next = a[i]·x + b[i]·prediction + c[i]·noise. The clean
    image that it predicts is x0_a[i]·x + x0_b[i]·prediction. The first step begins at `start`·noise, a float.
    `levels` [steps + 1, 2] are (α, σ) of the state with which each step begins, and of the clean image, (1, 0).
    """

    timesteps: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor
    x0_a: torch.Tensor
    x0_b: torch.Tensor
    start: float = 1.0
    levels: torch.Tensor = field(default_factory=lambda: torch.empty(0, 2))

    def __post_init__(self) -> None:
        # All that a row needs after the network in one tensor [steps, 5, 1, 1, 1], so that a step looks it up once.
        columns = torch.stack([self.a, self.b, self.c, self.x0_a, self.x0_b], dim=1)
        object.__setattr__(self, "_coefficients", columns[:, :, None, None, None])

    def coefficients(self, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a, b, c, x0_a and x0_b of the steps `index`, int64 [B]: fp32 [B, 1, 1, 1] each."""
        rows: torch.Tensor = vars(self)["_coefficients"][index]
        return rows.unbind(1)

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    @property
    def noise_draws(self) -> int:
        """Number of draws of noise for an image: its starting latent and, in a stochastic sampler, one a step."""
        return 1 + self.steps if bool(self.c.any()) else 1

    @property
    def noise_levels(self) -> list[float]:
        """The share of noise, σ / (α + σ), with which each step begins, and that of the clean image, 0; to six digits,
        since people read them."""
        return [round(level, 6) for level in (self.levels[:, 1] / self.levels.sum(1)).tolist()]

    def entry(self, strength: float) -> int:
        """Return the step at which a picture enters that is to change by `strength`, `steps` for none at all."""
        return entry_step(self.noise_levels, strength)

    def to(self, device: torch.device) -> "StepTable":
        columns = [column.name for column in fields(self) if column.name != "start"]
        return replace(self, **{name: getattr(self, name).to(device) for name in columns})


def flow_table(sigmas: Sequence[float], sampler: Sampler = ode) -> StepTable:
    """Build steps along `sigmas` of the flow, which has one entry more than there are steps."""
    grid = torch.tensor(sigmas, dtype=torch.float64)
    return _table(grid[:-1] * 1000, "flow", flow_levels(grid[:-1]), flow_levels(grid[1:]), sampler)


def ddpm_table(
    timesteps: Sequence[int],
    alphas_cumprod: torch.Tensor,
    prediction: str,
    sampler: Sampler = ode,
    ends: Sequence[int] | None = None,
) -> StepTable:
    """Build steps along `timesteps`, each of which ends at its entry in `ends`: by default at the next timestep, and
    the last at the clean image, −1.

    `alphas_cumprod` holds ᾱ for every training timestep. `prediction` is the network's, all but "flow". With `renoise`,
    the steps are those of diffusers' LCMScheduler, but for its boundary terms. The skip of a state at timestep t is
    .25 / (10·t)² there (2.5e-9 at 999) and 0 here.
    Raises ValueError for another prediction, and for epsilon at ᾱ = 0, where it says nothing about the image.
    """
    if prediction == "flow":
        raise ValueError(f"prediction: timesteps are for epsilon, v and sample, not {prediction}")
    ends = [*timesteps[1:], -1] if ends is None else ends
    now, following = (ddpm_levels(torch.tensor(grid), alphas_cumprod) for grid in (timesteps, ends))
    if prediction == "epsilon" and not bool((now[0] > 0).all()):
        raise ValueError("timesteps: an epsilon prediction cannot be sampled where alphas_cumprod is 0")
    grid = torch.tensor(timesteps, dtype=torch.float64)
    return _table(grid, cast(Prediction, prediction), now, following, sampler)


def _table(
    timesteps: torch.Tensor, prediction: Prediction, now: Levels, following: Levels, sampler: Sampler
) -> StepTable:
    """`now` and `following` are (α, σ) at which each step begins and ends."""
    state, noise = sampler(prediction, now, following)
    x0 = x0_coefficients(prediction, now)
    timesteps, a, b, c, x0_a, x0_b = (column.float() for column in (timesteps, *state, noise, *x0))
    levels = torch.cat([torch.stack(now, 1), torch.tensor([[1.0, 0.0]])]).float()
    return StepTable(timesteps, a, b, c, x0_a, x0_b, levels=levels)


def from_contract(
    contract: SamplingContract, alphas_cumprod: torch.Tensor | None = None, size: tuple[int, int] | None = None
) -> StepTable:
    """Build the sampler of `contract` for images of `size`, by default its first; all predictions but the flow need the
    training schedule's `alphas_cumprod`.

    Raises ValueError that names the field of the contract which does not fit.
    """
    if contract.prediction == "flow":
        sigmas = contract.sigmas_of(size or contract.sizes[0])
        if sigmas is None:
            raise ValueError("sigmas: a flow prediction is sampled along sigmas, and there are none")
        return flow_table(sigmas, SAMPLERS[contract.sampler])
    timesteps = contract.timesteps
    if timesteps is None or alphas_cumprod is None:
        raise ValueError(f"timesteps: prediction {contract.prediction} needs them, and a scheduler with alphas_cumprod")
    if timesteps[0] >= len(alphas_cumprod):
        raise ValueError(f"timesteps: {timesteps[0]} is not below the {len(alphas_cumprod)} of the scheduler")
    last = 0 if contract.end == "first" or contract.sampler == "tcd" else -1
    ends = [*(timesteps[1:] if contract.step_ends is None else contract.step_ends), last]
    if contract.sampler == "tcd":
        below = torch.tensor([math.floor((1 - (contract.gamma or 0.0)) * end) for end in ends])
        sampler = tcd(ddpm_levels(below, alphas_cumprod))
    else:
        sampler = SAMPLERS[contract.sampler]
    table = ddpm_table(timesteps, alphas_cumprod, contract.prediction, sampler, ends)
    if contract.start == "level":
        _, sigma = ddpm_levels(torch.tensor(timesteps[:1]), alphas_cumprod)
        table = replace(table, start=sigma.item())
    return table


def step(
    table: StepTable,
    predict: Predict,
    latents: torch.Tensor,
    index: torch.Tensor,
    noise: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take one step of each row, from its own step index to the next.

    `latents` fp32 [B, C, H, W]; `index` int64 [B] on the same device; `noise` fp32 like `latents`, for tables whose
    c is not all zero. Returns the next latents and pred_x0, the predicted clean ones, fp32. Never waits for the device.
    """
    timesteps, (a, b, c, x0_a, x0_b) = table.timesteps[index], table.coefficients(index)
    prediction = predict(latents, timesteps).float()
    following = a * latents + b * prediction
    if noise is not None:
        following = following + c * noise
    return following, x0_a * latents + x0_b * prediction


def sample(table: StepTable, predict: Predict, noise: torch.Tensor) -> torch.Tensor:
    """Take all steps of one batch, its rows in lockstep.

    `noise` fp32 [draws, B, C, H, W], standard normal, with `table.noise_draws` draws, or [B, C, H, W] for a
    deterministic table.
    Returns clean latents, fp32 [B, C, H, W]. Keeps gradients; the caller decides about `torch.no_grad`.
    """
    draws = noise if noise.ndim == 5 else noise[None]
    latents = table.start * draws[0]
    for number in range(table.steps):
        index = torch.full((len(latents),), number, device=latents.device)
        latents, _ = step(table, predict, latents, index, draws[1 + number] if len(draws) > 1 else None)
    return latents


def guided(predict_both: Predict, scale: Scale, guide: Guide = classifier_free_guidance) -> Predict:
    """Guide by a `predict_both` that is given [unconditional rows, conditional rows], 2·B rows in all."""

    def predict(latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        both = predict_both(torch.cat([latents, latents]), torch.cat([timesteps, timesteps])).float()
        unconditional, conditional = both.chunk(2)
        return guide(unconditional, conditional, scale)

    return predict
