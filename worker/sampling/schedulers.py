"""diffusers' schedulers as samplers: those that are served, and the fields of `sampling.json` that stand for each."""

from collections.abc import Callable
from typing import Any

import numpy as np

from worker.errors import FolderRefusedError

Fields = dict[str, Any]
"""Fields of a SamplingContract."""


def sampler_fields(scheduler: Any) -> Fields:
    """Return the sampler that `scheduler` is, one that is served, after its `set_timesteps`."""
    return SERVED[type(scheduler).__name__](scheduler)


def refuse_other_scheduler(scheduler: Any) -> None:
    """Raise FolderRefusedError, naming the scheduler, for one whose steps are no rows of a table: because they need
    earlier predictions, draw from another distribution or clip the image on the way."""
    name = type(scheduler).__name__
    if name not in SERVED:
        raise FolderRefusedError(f"scheduler: {name} is not served without a sampling.json; served are {_served()}")
    spoilt = [option for option in SPOILING if scheduler.config.get(option)]
    if scheduler.config.get("final_sigmas_type", "zero") != "zero":
        spoilt.append("final_sigmas_type")
    if scheduler.config.get("timestep_type", "discrete") != "discrete":
        spoilt.append("timestep_type")
    if spoilt:
        raise FolderRefusedError(f"scheduler: {name} is not served with {', '.join(spoilt)}")


def flow_grid(scheduler: Any, steps: int, tokens: int = 0, mu: float | None = None) -> list[float]:
    """Return the noise levels of `steps` steps, evenly spaced and then shifted as `scheduler` is configured.

    A dynamic shift is by `mu`, by default that of an image of so many `tokens`.
    """
    if mu is None:
        config = scheduler.config
        rise = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        mu = config.base_shift + rise * (tokens - config.base_image_seq_len)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=mu)
    return scheduler.sigmas.tolist()


def _euler(sampler: str) -> Callable[[Any], Fields]:
    def fields(scheduler: Any) -> Fields:
        """The state in these schedulers' own terms is x/α: its noise is σ/α, for leading timesteps √(σ²/α² + 1)."""
        return {"sampler": sampler, "start": "unit" if scheduler.config.timestep_spacing == "leading" else "level"}

    return fields


def _ddim(scheduler: Any) -> Fields:
    """A step of DDIM ends an equal share of the schedule below its timestep, whichever the next timestep is."""
    timesteps = scheduler.timesteps.tolist()
    share = scheduler.config.num_train_timesteps // len(timesteps)
    ends = [t - share for t in timesteps[:-1]]
    end = "clean" if scheduler.config.set_alpha_to_one else "first"
    return {"sampler": "ode", "end": end} | ({} if ends == timesteps[1:] else {"step_ends": ends})


SPOILING = (
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "thresholding", "clip_sample",
    "stochastic_sampling", "invert_sigmas", "scale_factors",
)  # fmt: skip
"""Options with which a scheduler does something else than its table."""

SERVED: dict[str, Callable[[Any], Fields]] = {
    "EulerDiscreteScheduler": _euler("ode"),
    "EulerAncestralDiscreteScheduler": _euler("ancestral"),
    "DDIMScheduler": _ddim,
    "LCMScheduler": lambda scheduler: {"sampler": "re-noise"},
    # Pipelines pass TCD's γ as `eta`, which is 0 unless the caller says otherwise.
    "TCDScheduler": lambda scheduler: {"sampler": "tcd", "gamma": 0.0},
    "FlowMatchEulerDiscreteScheduler": lambda scheduler: {"sampler": "ode"},
    "FlowMatchLCMScheduler": lambda scheduler: {"sampler": "re-noise"},
    "SCMScheduler": lambda scheduler: {"sampler": "re-noise"},
}


def _served() -> str:
    return ", ".join(name.removesuffix("Scheduler").removesuffix("Discrete") for name in SERVED)
