"""Each preset is sampled as its card documents; other tests hold those schedulers beside diffusers' pictures."""

import functools
from typing import Any

import pytest
from typer.testing import CliRunner

from fourstep import app
from tests.worker.importing.documented import GIVEN, scheduler_of
from worker.importing.presets import PRESETS, Preset
from worker.model_folder.contract import own_contract
from worker.testing.tiny_families import BUILDS

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
    if scheduler := scheduler_of(preset):
        pipeline.scheduler = scheduler
    own = own_contract(pipeline, preset.steps, sizes=[size])
    assert {name: getattr(contract, name) for name in SAMPLING} == {name: getattr(own, name) for name in SAMPLING}
    assert contract.sigmas == (None if own.sigmas is None else pytest.approx(own.sigmas, abs=1e-6))
    assert contract.gamma == (1.0 if contract.sampler == "tcd" else None)


def test_kleins_levels_depend_on_the_size() -> None:
    contract = PRESETS["flux2-klein-4b-4step"].contract([(1024, 1024), (512, 512)])
    assert contract.sigmas_of((1024, 1024)) == pytest.approx([1, 0.9674, 0.9081, 0.7672, 0], abs=1e-4)
    assert contract.sigmas_of((512, 512)) == pytest.approx([1, 0.9581, 0.8840, 0.7175, 0], abs=1e-4)


def test_flux_devs_levels_depend_on_the_size() -> None:
    contract = PRESETS["hyper-flux-8steps"].contract([(1024, 1024), (512, 512)])
    assert contract.sigmas_of((1024, 1024))[::2] == pytest.approx([1, 0.9045, 0.7595, 0.5128, 0], abs=1e-4)
    assert contract.sigmas_of((512, 512))[::2] == pytest.approx([1, 0.8492, 0.6525, 0.3849, 0], abs=1e-4)


def test_the_presets_are_listed_with_their_sources() -> None:
    result = CliRunner().invoke(app, ["models", "list"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert all(preset.source in line for preset, line in zip(PRESETS.values(), lines, strict=True))
