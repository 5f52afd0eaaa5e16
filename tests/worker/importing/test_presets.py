"""Each preset is sampled as its card documents; other tests hold those schedulers beside diffusers' pictures."""

import functools
from typing import Any

import pytest
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)
from typer.testing import CliRunner

from fourstep import app
from worker.importing.presets import PRESETS, Preset
from worker.model_folder.contract import own_contract
from worker.testing.tiny_families import BUILDS
from worker.testing.tiny_sd_pipelines import ALPHAS

TRAILING = ALPHAS | {"timestep_spacing": "trailing"}
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
    "dpdmd": FlowMatchEulerDiscreteScheduler(shift=3.0),
}
"""The scheduler of the presets whose names begin so; the pipelines of other families carry their own."""
GIVEN = {"hyper-sdxl-1step-unet": [800], "dmd2-sdxl-4step": [999, 749, 499, 249], "dmd2-sdxl-1step": [399]}
"""Timesteps that a card gives one by one; they are re-noised."""

SAMPLING = ("prediction", "steps", "sampler", "timesteps", "step_ends", "start", "end")


@functools.cache
def tiny_pipeline(family: str) -> Any:
    return BUILDS[family]()


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_a_preset_is_sampled_as_its_card_documents(preset: Preset) -> None:
    size = preset.size or (1024, 1024)
    contract, pipeline = preset.contract([size]), tiny_pipeline(preset.family)
    if preset.name in GIVEN:
        assert (contract.timesteps, contract.sampler, contract.start) == (GIVEN[preset.name], "re-noise", "unit")
        return
    documented = [name for name in DOCUMENTED if preset.name.startswith(name)]
    if documented:
        pipeline.scheduler = DOCUMENTED[max(documented, key=len)]
    own = own_contract(pipeline, preset.steps, sizes=[size])
    assert {name: getattr(contract, name) for name in SAMPLING} == {name: getattr(own, name) for name in SAMPLING}
    assert contract.sigmas == (None if own.sigmas is None else pytest.approx(own.sigmas, abs=1e-6))
    assert contract.gamma == (1.0 if contract.sampler == "tcd" else None)


def test_kleins_levels_depend_on_the_size() -> None:
    contract = PRESETS["flux2-klein-4b-4step"].contract([(1024, 1024), (512, 512)])
    assert contract.sigmas_of((1024, 1024)) == pytest.approx([1, 0.9674, 0.9081, 0.7672, 0], abs=1e-4)
    assert contract.sigmas_of((512, 512)) == pytest.approx([1, 0.9581, 0.8840, 0.7175, 0], abs=1e-4)


def test_the_presets_are_listed_with_their_sources() -> None:
    result = CliRunner().invoke(app, ["models", "list"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert all(preset.source in line for preset, line in zip(PRESETS.values(), lines, strict=True))
