"""Few-step samplers as tables of coefficients: x_next = a·x + b·model(x, t) + c·noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from jobs.sampling_contract import SamplingContract
from worker.sampling.guidance import Guide, classifier_free_guidance
from worker.sampling.noise_schedule import (
    Levels,
    Prediction,
    ddpm_levels,
    flow_levels,
    ode_coefficients,
    x0_coefficients,
)

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents fp32 [B, C, H, W], timesteps fp32 [B]) → the network's prediction [B, C, H, W]."""


@dataclass(frozen=True)
class StepTable:
    """One row of coefficients for each step of a sampler; every field is a fp32 tensor [steps].

    Step i calls the network at `timesteps[i]` and gives x_next = a[i]·x + b[i]·prediction + c[i]·noise. The clean
    image that it predicts is x0_a[i]·x + x0_b[i]·prediction.
    """

    timesteps: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor
    x0_a: torch.Tensor
    x0_b: torch.Tensor

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    @property
    def noise_draws(self) -> int:
        """Number of draws of noise for an image: its starting latent and, in a stochastic sampler, one a step."""
        return 1 + self.steps if bool(self.c.any()) else 1

    def to(self, device: torch.device) -> "StepTable":
        return replace(self, **{name: column.to(device) for name, column in vars(self).items()})


def flow_table(sigmas: Sequence[float], renoise: bool = False) -> StepTable:
    """Build Euler steps of the flow ODE dx/dσ = v along `sigmas`, which has one entry more than there are steps.

    With `renoise`, each step goes to the predicted clean image instead, and by fresh noise to the next level.
    """
    grid = torch.tensor(sigmas, dtype=torch.float64)
    return _table(grid[:-1] * 1000, "flow", flow_levels(grid[:-1]), flow_levels(grid[1:]), renoise)


def ddpm_table(
    timesteps: Sequence[int], alphas_cumprod: torch.Tensor, prediction: str, renoise: bool = False
) -> StepTable:
    """Build deterministic DDIM (η = 0) along `timesteps`; the last step lands on the predicted clean image.

    `alphas_cumprod` holds ᾱ for every training timestep. `prediction` is the network's, "epsilon" or "v". With
    `renoise`, the steps are as in `flow_table`: those of diffusers' LCMScheduler, but for its boundary terms. The skip
    of a state at timestep t is .25 / (10·t)² there (2.5e-9 at 999) and 0 here.
    Raises ValueError for another prediction, and for epsilon at ᾱ = 0, where it says nothing about the image.
    """
    if prediction not in ("epsilon", "v"):
        raise ValueError(f"prediction: DDIM needs epsilon or v, not {prediction}")
    grid = torch.tensor([*timesteps, -1], dtype=torch.float64)
    now, following = (ddpm_levels(t, alphas_cumprod) for t in (grid[:-1], grid[1:]))
    if prediction == "epsilon" and not bool((now[0] > 0).all()):
        raise ValueError("timesteps: an epsilon prediction cannot be sampled where alphas_cumprod is 0")
    return _table(grid[:-1], cast(Prediction, prediction), now, following, renoise)


def _table(timesteps: torch.Tensor, prediction: Prediction, now: Levels, following: Levels, renoise: bool) -> StepTable:
    """`now` and `following` are (α, σ) at which each step begins and ends."""
    x0 = x0_coefficients(prediction, now)
    if renoise:
        alpha, noise = following
        state = alpha * x0[0], alpha * x0[1]
    else:
        state, noise = ode_coefficients(prediction, now, following), torch.zeros_like(timesteps)
    return StepTable(*(column.float() for column in (timesteps, *state, noise, *x0)))


def from_contract(contract: SamplingContract, alphas_cumprod: torch.Tensor | None = None) -> StepTable:
    """Build the sampler of `contract`; epsilon and v need the training schedule's `alphas_cumprod`.

    Raises ValueError that names the field of the contract which does not fit.
    """
    renoise = contract.sampler == "re-noise"
    if contract.prediction == "flow":
        if contract.sigmas is None:
            raise ValueError("sigmas: a flow prediction is sampled along sigmas, and there are none")
        return flow_table(contract.sigmas, renoise)
    if contract.timesteps is None or alphas_cumprod is None:
        raise ValueError(f"timesteps: prediction {contract.prediction} needs them, and a scheduler with alphas_cumprod")
    if contract.timesteps[0] >= len(alphas_cumprod):
        raise ValueError(f"timesteps: {contract.timesteps[0]} is not below the {len(alphas_cumprod)} of the scheduler")
    return ddpm_table(contract.timesteps, alphas_cumprod, contract.prediction, renoise)


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
    prediction = predict(latents, table.timesteps[index]).float()
    following = _rows(table.a, index) * latents + _rows(table.b, index) * prediction
    if noise is not None:
        following = following + _rows(table.c, index) * noise
    return following, _rows(table.x0_a, index) * latents + _rows(table.x0_b, index) * prediction


def sample(table: StepTable, predict: Predict, noise: torch.Tensor) -> torch.Tensor:
    """Take all steps of one batch, its rows in lockstep.

    `noise` fp32 [draws, B, C, H, W] with `table.noise_draws` draws, or [B, C, H, W] for a deterministic table.
    Returns clean latents, fp32 [B, C, H, W]. Keeps gradients; the caller decides about `torch.no_grad`.
    """
    draws = noise if noise.ndim == 5 else noise[None]
    latents = draws[0]
    for number in range(table.steps):
        index = torch.full((len(latents),), number, device=latents.device)
        latents, _ = step(table, predict, latents, index, draws[1 + number] if len(draws) > 1 else None)
    return latents


def guided(predict_both: Predict, scale: float, guide: Guide = classifier_free_guidance) -> Predict:
    """Guide by a `predict_both` that is given [unconditional rows, conditional rows], 2·B rows in all."""

    def predict(latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        both = predict_both(torch.cat([latents, latents]), torch.cat([timesteps, timesteps])).float()
        unconditional, conditional = both.chunk(2)
        return guide(unconditional, conditional, scale)

    return predict


def _rows(column: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return column[index].view(-1, 1, 1, 1)
