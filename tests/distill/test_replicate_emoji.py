"""The emoji beds: what the exact teacher answers, and that each method's configuration is one the trainer takes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.emoji.artwork import Artwork
from distill.emoji.captions import Captions
from distill.emoji.world import EMOJI
from distill.evaluation import emoji
from distill.replicate import emoji_beds
from distill.replicate.exact_trainer import ExactTeacher, ExactTrainer
from worker.sampling.noise_schedule import FLOW, shifted_grid

STYLES_OF_EACH = 2
ARTWORK = Artwork(
    np.zeros((STYLES_OF_EACH * len(EMOJI), 64, 64, 3), np.uint8),
    np.repeat(np.arange(len(EMOJI)), STYLES_OF_EACH),
    np.tile(np.arange(STYLES_OF_EACH), len(EMOJI)),
)
LATENTS = torch.randn(len(ARTWORK.emoji), 4, 16, 16, generator=torch.Generator().manual_seed(0))
TEACHER = ExactTeacher(Captions(ARTWORK), LATENTS)


def test_the_exact_teachers_samples_are_pictures_that_fit_the_prompt() -> None:
    prompts = ("animal", "an icon of a sheep", "one bus please", "fruit")
    asked = torch.tensor([TEACHER.caption(prompt) for prompt in prompts]).repeat_interleave(8)
    noise = torch.randn(len(asked), 4, 16, 16, generator=torch.Generator().manual_seed(1))
    made = FLOW.solve(TEACHER.conditional(asked), noise, shifted_grid(30, 3.0))
    distance, nearest = torch.cdist(made.flatten(1), LATENTS.flatten(1)).min(1)
    assert distance.max() < 0.5
    assert (TEACHER.captions.posterior[asked, nearest] > 0).all()
    shown = ARTWORK.emoji[nearest.numpy()].reshape(len(prompts), 8)
    assert len(set(shown[0])) > 2
    assert len(set(shown[1])) == 1


def test_every_prompt_of_the_evaluation_is_understood_as_its_judge_understands_it() -> None:
    for prompt in emoji.prompts():
        fits = TEACHER.captions.posterior[TEACHER.caption(prompt)] > 0
        things = torch.zeros(len(EMOJI))
        things[torch.from_numpy(ARTWORK.emoji)[fits]] = 1
        assert torch.equal(things, emoji._fitting(prompt)), prompt
    with pytest.raises(ValueError, match="no picture fits"):
        TEACHER.caption("zzz")


@pytest.mark.parametrize("method", emoji_beds.METHODS)
def test_every_methods_configuration_is_valid(method) -> None:
    config = emoji_beds.configured(emoji_beds.SMALL, method, seed=2)
    assert (config.method_, config.seed, config.guidance_scale) == (method, 2, 1.0)
    assert config.method().distribution_matching == (method != "step1-regression")


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"batch": 3}])
def test_results_of_other_settings_are_not_mixed_with_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    monkeypatch.setattr("distill.config.has_native_bfloat16", lambda device: False)
    config = emoji_beds.configured(emoji_beds.QUICK, "dmd", seed=0)
    (tmp_path / "dmd-0.json").write_text(json.dumps({"config": emoji_beds._as_json(config) | change}))
    with pytest.raises(ValueError, match="other settings"):
        emoji_beds._missing(emoji_beds.QUICK, tmp_path)


def test_the_exact_teacher_takes_no_guidance(tmp_path: Path) -> None:
    config = emoji_beds.configured(replace(emoji_beds.SMALL, guidance=3.5), "dmd", seed=0)
    with pytest.raises(ValueError, match="guidance_scale"):
        ExactTrainer(config, tmp_path, ARTWORK)
