from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.sampling_contract import SamplingContract

FLOW = {
    "schema": 1,
    "method": "dp-dmd",
    "family": "sd3",
    "prediction": "flow",
    "steps": 4,
    "sigmas": [1.0, 0.9, 0.75, 0.5, 0.0],
    "guidance_scale": 1.0,
    "max_sequence_length": 16,
    "sizes": [[64, 64]],
    "anchor_k": 20,
    "lambda": 0.5,
    "teacher": {"id": "emoji-teacher", "sha256": "ab"},
    "base_sha256": "cd",
    "metrics": {"diversity": 0.9},
}
DDPM = {"prediction": "epsilon", "family": "sdxl", "sigmas": None, "timesteps": [999, 749, 499, 249]}


def test_a_saved_contract_loads_equal(tmp_path: Path) -> None:
    contract = SamplingContract.model_validate(FLOW)
    contract.save(tmp_path)
    assert SamplingContract.load(tmp_path) == contract
    assert '"lambda": 0.5' in (tmp_path / "sampling.json").read_text()


def test_saving_keeps_every_digit_of_the_grid(tmp_path: Path) -> None:
    sigmas = [1.0, 1 / 3, 0.1 + 0.2 - 1e-17, 1e-7, 0.0]
    contract = SamplingContract.model_validate(FLOW | {"sigmas": sigmas})
    contract.save(tmp_path)
    assert SamplingContract.load(tmp_path).sigmas == sigmas


@pytest.mark.parametrize(("guidance_scale", "evaluations"), [(1.0, 4), (3.5, 8)])
def test_guidance_doubles_the_evaluations(guidance_scale: float, evaluations: int) -> None:
    contract = SamplingContract.model_validate(FLOW | {"guidance_scale": guidance_scale})
    assert contract.evaluations == evaluations


def test_timesteps_are_a_grid_too() -> None:
    assert SamplingContract.model_validate(FLOW | DDPM).timesteps == [999, 749, 499, 249]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps": 3}, "steps \\+ 1 = 4"),
        ({"sigmas": [1.0, 0.9, 0.9, 0.5, 0.0]}, "fall strictly"),
        ({"sigmas": [1.1, 0.9, 0.8, 0.5, 0.0]}, "at most 1"),
        ({"sigmas": [1.0, 0.9, 0.8, 0.5, 0.0089]}, "to 0.0"),
        ({"sigmas": None}, "exactly one"),
        ({"timesteps": [999, 749, 499, 249]}, "exactly one"),
        ({"sigmas": None, "timesteps": [999, 749, 249]}, "steps = 4"),
        ({"sigmas": None, "timesteps": [999, 249, 499, 0]}, "fall strictly"),
        ({"sigmas": None, "timesteps": [999, 499, 249, -1]}, "below 0"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"size_sigmas": [[1.0, 0.9, 0.75, 0.5, 0.0]] * 2}, "one list beside sigmas for each"),
        ({"size_sigmas": [[1.0, 0.5, 0.0]]}, "steps \\+ 1 = 5"),
        ({"sampler": "ancestral"}, "ancestral needs timesteps"),
        ({"start": "level"}, "belong to timesteps"),
        ({"end": "first"}, "belong to timesteps"),
        ({"gamma": 0.3}, "gamma belongs to the sampler tcd"),
        (DDPM | {"sampler": "tcd"}, "gamma belongs to the sampler tcd"),
        (DDPM | {"sampler": "tcd", "gamma": 1.1}, "gamma"),
        (DDPM | {"sampler": "ancestral", "end": "first"}, "an end of its own"),
        (DDPM | {"step_ends": [749, 499, 249, 0]}, "steps − 1 = 3"),
        (DDPM | {"step_ends": [749, 499, 499]}, "below their timesteps"),
        ({"sizes": []}, "sizes"),
        ({"sizes": [[64, 0]]}, "sizes"),
        ({"schema": 2}, "schema"),
        ({"sigma": [1.0]}, "sigma"),
        ({"examples": [""]}, "examples"),
        ({"examples": ["fruit"] * 25}, "examples"),
    ],
)
def test_an_unsound_contract_is_refused_with_the_reason(change: dict, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SamplingContract.model_validate(FLOW | change)


def test_a_folder_without_the_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SamplingContract.load(tmp_path)
