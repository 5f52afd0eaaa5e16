"""Stable Diffusion 3: the engine's pictures are those of diffusers' own pipeline, and no mistake goes unnoticed."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.families import published
from tests.worker.families.published import Mistake, answered, contracted, decoded, told, with_tokens
from worker.model_folder.loading import LoadedModel
from worker.testing import tiny_pipelines
from worker.testing.tiny_pipelines import TOKENS

SIZES = [(64, 64), (64, 48), (32, 64)]
GUIDED = {4: 3.0, 8: 5.0, 16: 7.0}
"""The guidance of Hyper-SD3 by its number of steps."""

PIPELINE = tiny_pipelines.build()
PIPELINE.scheduler.register_to_config(shift=3.0)
PIPELINE.scheduler = type(PIPELINE.scheduler).from_config(PIPELINE.scheduler.config)


def _model(steps: int = 4, **changes: Any) -> LoadedModel:
    contract = published.contract_of(PIPELINE, steps, SIZES, max_sequence_length=TOKENS, **changes)
    return published.model_of(PIPELINE, contract)


def _theirs(size: tuple[int, int], steps: int = 4, guidance_scale: float = 1.0) -> np.ndarray:
    options = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "max_sequence_length": TOKENS}
    return published.theirs(PIPELINE, size, **options)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_its_pictures_are_those_of_diffusers(steps: int, size: tuple[int, int]) -> None:
    model, expected = _model(steps), _theirs(size, steps)
    assert published.agrees(published.ours(model, size), expected)
    assert published.agrees(published.ours(model, size, staggered=True), expected)


@pytest.mark.slow
@pytest.mark.parametrize("steps", GUIDED)
def test_guidance_is_that_of_diffusers(steps: int) -> None:
    model = _model(steps, guidance_scale=GUIDED[steps])
    assert published.agrees(published.ours(model, SIZES[1]), _theirs(SIZES[1], steps, GUIDED[steps]))


def test_a_strict_picture_does_not_depend_on_its_neighbours() -> None:
    published.check_strict(_model(), SIZES[0])


def test_steps_are_replayed_from_graphs() -> None:
    published.check_graphs(_model(), SIZES[0])
    published.check_operators(_model(), SIZES[0])


@pytest.mark.slow
def test_blocks_and_decoder_are_traced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    published.check_compiles(_model(), SIZES[0], monkeypatch)


MISTAKES: dict[str, Mistake] = {
    "time": told(lambda latents, t, e, size: (latents, published.later(t), e, size)),
    "time as 1 − σ": told(lambda latents, t, e, size: (latents, 1000 - t, e, size)),
    "time as σ": told(lambda latents, t, e, size: (latents, t / 1000, e, size)),
    "sign": answered(torch.neg),
    "row and column exchanged": published.transposed(),
    "channels of the text reversed": with_tokens(lambda tokens: tokens.flip(1)),
    "text zero": with_tokens(torch.zeros_like),
    "text of CLIP alone": with_tokens(lambda tokens: tokens[:-TOKENS]),
    "no pooled text": published.without_pooled(),
    "not shifted": contracted(sigmas=[1.0, 0.75, 0.5, 0.25, 0.0]),
    "another shift": contracted(sigmas=published.shifted),
    "guidance": contracted(guidance_scale=1.5),
    "fresh noise": contracted(sampler="re-noise"),
    "latents scaled": decoded(lambda latents: latents * 1.01),
    "latents moved": decoded(lambda latents: latents + 0.05),
}


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return _theirs(SIZES[0])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake: str, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    model = MISTAKES[mistake](monkeypatch, model) or model
    assert not published.agrees(published.ours(model, SIZES[0]), expected)
