"""The sampling of the published few-step models, as their cards document it."""

from typing import Any

from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)

from worker.importing.presets import Preset
from worker.testing.tiny_sd_pipelines import ALPHAS

TRAILING = ALPHAS | {"timestep_spacing": "trailing"}
FLUX_DEV = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
DOCUMENTED: dict[str, Any] = {
    "sdxl-turbo": EulerAncestralDiscreteScheduler(**TRAILING),
    "sd-turbo": EulerDiscreteScheduler(**TRAILING),
    "sdxl-lightning-1step": EulerDiscreteScheduler(**TRAILING, prediction_type="sample"),
    "sdxl-lightning": EulerDiscreteScheduler(**TRAILING),
    "hyper-sdxl-unified": TCDScheduler(**ALPHAS),
    "hyper-sd15-unified": TCDScheduler(**ALPHAS),
    "hyper-sdxl": DDIMScheduler(**TRAILING, clip_sample=False, set_alpha_to_one=False),
    "hyper-sd15": DDIMScheduler(**TRAILING, clip_sample=False, set_alpha_to_one=False),
    "lcm-": LCMScheduler(**ALPHAS),
    "hyper-sd3": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "sd35-large-turbo": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flux-schnell": FlowMatchEulerDiscreteScheduler(shift=1.0),
    "hyper-flux": FLUX_DEV,
    "flux-turbo-alpha": FLUX_DEV,
    "dpdmd": FlowMatchEulerDiscreteScheduler(shift=3.0),
}
"""The scheduler of the presets whose names begin so; the pipelines of other families carry their own."""
GIVEN = {"hyper-sdxl-1step-unet": [800], "dmd2-sdxl-4step": [999, 749, 499, 249], "dmd2-sdxl-1step": [399]}
"""Timesteps that a card gives one by one; they are re-noised."""


def scheduler_of(preset: Preset) -> Any:
    """The scheduler of a preset, None where the pipeline carries its own."""
    if preset.name in GIVEN:
        return LCMScheduler(**ALPHAS)
    documented = [name for name in DOCUMENTED if preset.name.startswith(name)]
    return DOCUMENTED[max(documented, key=len)] if documented else None
