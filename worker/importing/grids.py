"""The grids on which few-step models are published."""

from functools import cache

from diffusers import FlowMatchEulerDiscreteScheduler, SCMScheduler

from worker.families.base import Size
from worker.families.sana_sprint import levels
from worker.sampling.noise_schedule import trailing_grid
from worker.sampling.schedulers import flow_grid

TRAINING_STEPS = 1000
LCM_STEPS = 50
"""The number of timesteps that latent consistency models were trained at."""


def trailing(steps: int) -> list[int]:
    """Return `steps` timesteps, evenly spaced, the first the noisiest of all."""
    return [int(t) for t in trailing_grid(steps, TRAINING_STEPS)[:-1]]


def ddim_ends(steps: int) -> list[int] | None:
    """Return the timesteps at which all steps but the last of DDIM along `trailing` end; None for the next ones."""
    timesteps = trailing(steps)
    ends = [t - TRAINING_STEPS // steps for t in timesteps[:-1]]
    return None if ends == timesteps[1:] else ends


def consistency(steps: int) -> list[int]:
    """Return `steps` of the timesteps 999, 979, … 19, as LCM's and TCD's schedulers choose them."""
    share = TRAINING_STEPS // LCM_STEPS
    return [TRAINING_STEPS - 1 - share * (LCM_STEPS * step // steps) for step in range(steps)]


@cache
def stable_diffusion_3(steps: int) -> list[float]:
    """Return the noise levels of Stable Diffusion 3's own scheduler, which is shifted by 3 twice."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.tolist()


@cache
def shifted(steps: int, shift: float) -> list[float]:
    """Return evenly spaced noise levels, shifted once."""
    return flow_grid(FlowMatchEulerDiscreteScheduler(shift=shift), steps)


@cache
def sana_sprint(steps: int) -> list[float]:
    """Return SANA-Sprint's noise levels."""
    return levels(SCMScheduler(), steps)


def flux_dev(steps: int, size: Size) -> list[float]:
    """Return FLUX.1 [dev]'s noise levels for images of `size`, (height, width) in pixels."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    return flow_grid(scheduler, steps, _flux_tokens(size))


def klein(steps: int, size: Size) -> list[float]:
    """Return FLUX.2 [klein]'s noise levels for images of `size`, (height, width) in pixels."""
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return flow_grid(scheduler, steps, mu=compute_empirical_mu(_flux_tokens(size), steps))


def _flux_tokens(size: Size) -> int:
    return (size[0] // 16) * (size[1] // 16)
