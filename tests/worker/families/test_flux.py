"""FLUX.1: the engine's pictures are those of diffusers' own pipeline, and no mistake goes unnoticed."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.families import published
from tests.worker.families.compiled import check_compiles
from tests.worker.families.published import Mistake, answered, contracted, decoded, replaced, told
from worker.errors import FolderRefusedError
from worker.families import flux
from worker.model_folder.contract import own_contract
from worker.model_folder.loading import LoadedModel, load
from worker.testing import tiny_flux_pipelines
from worker.testing.tiny_pipelines import TOKENS

SIZES = [(64, 64), (64, 96), (128, 80)]
OPTIONS: dict[bool, dict[str, Any]] = {False: {"guidance_scale": 0.0}, True: {"guidance_scale": 3.5}}
"""The call of schnell and dev, as their cards have it."""

PIPELINES = {dev: tiny_flux_pipelines.build(dev) for dev in OPTIONS}


def _model(dev: bool, steps: int = 4) -> LoadedModel:
    return published.model_of(PIPELINES[dev], published.contract_of(PIPELINES[dev], steps, SIZES))


def _theirs(dev: bool, size: tuple[int, int], steps: int = 4) -> np.ndarray:
    return published.theirs(PIPELINES[dev], size, num_inference_steps=steps, max_sequence_length=TOKENS, **OPTIONS[dev])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dev", "steps"), [(False, 1), (False, 2), (False, 4), (True, 4), (True, 8)])
def test_its_pictures_are_those_of_diffusers(dev: bool, steps: int, size: tuple[int, int]) -> None:
    model, expected = _model(dev, steps), _theirs(dev, size, steps)
    assert published.agrees(published.ours(model, size), expected)
    assert published.agrees(published.ours(model, size, staggered=True), expected)


@pytest.mark.parametrize("dev", OPTIONS)
def test_a_strict_picture_does_not_depend_on_its_neighbours(dev: bool) -> None:
    published.check_strict(_model(dev), SIZES[0])


@pytest.mark.parametrize("dev", OPTIONS)
def test_steps_are_replayed_from_graphs(dev: bool) -> None:
    published.check_graphs(_model(dev), SIZES[0])
    published.check_operators(_model(dev), SIZES[0])


@pytest.mark.slow
def test_blocks_and_decoder_are_traced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiles(_model(True), SIZES[0], monkeypatch)


@pytest.mark.parametrize("dev", OPTIONS)
def test_a_saved_folder_is_served_as_it_is(dev: bool, tmp_path: Any) -> None:
    PIPELINES[dev].save_pretrained(tmp_path, safe_serialization=True)
    model = load(str(tmp_path), dtype="float32", sizes=SIZES)
    assert (model.contract.family, model.contract.told_guidance) == ("flux", 3.5 if dev else None)
    assert (model.contract.size_sigmas is None) == (not dev)
    assert published.agrees(published.ours(model, SIZES[1]), _theirs(dev, SIZES[1]))


@pytest.mark.parametrize(("scale", "told"), [(1.0, 3.5), (5.0, 5.0)])
def test_dev_is_told_the_chosen_guidance_scale(scale: float, told: float) -> None:
    contract = own_contract(PIPELINES[True], 4, guidance_scale=scale)
    assert (contract.told_guidance, contract.guidance_scale) == (told, 1.0)


def _permuted(latents: torch.Tensor) -> torch.Tensor:
    """Tokens whose values are ordered by row, column, then channel, as Z-Image's are."""
    rows, channels, height, width = latents.shape
    patches = latents.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
    return patches.reshape(rows, height * width // 4, 4 * channels)


MISTAKES: dict[str, Mistake] = {
    "time": told(lambda latents, t, e, size: (latents, published.later(t), e, size)),
    "time as 1 − σ": told(lambda latents, t, e, size: (latents, 1000 - t, e, size)),
    "sign": answered(torch.neg),
    "packing": replaced(flux, "packed", _permuted),
    "row and column exchanged": published.transposed(),
    "no positions": replaced(flux, "image_positions", lambda h, w, d: (torch.zeros(h * w), torch.zeros(h * w))),
    "positions by column": replaced(flux, "image_positions", lambda h, w, d: flux_positions(h, w, d)[::-1]),
    "text reversed, pooled not": published.with_tokens(lambda tokens: tokens.flip(1)),
    "text cut": published.with_tokens(lambda tokens: tokens[:-1]),
    "no pooled text": published.without_pooled(),
    "guidance": contracted(told_guidance=3.4),
    "another size's grid": contracted(size_sigmas=lambda grids: [grids[2], grids[1], grids[0]]),
    "another shift": contracted(size_sigmas=None, sigmas=published.shifted),
    "no grid by size": contracted(size_sigmas=lambda grids: [grids[1]] * 3),
    "no scale": decoded(lambda latents: latents * 0.3611),
    "no shift": decoded(lambda latents: latents - 0.1159 * 0.3611),
    "fresh noise": contracted(sampler="re-noise"),
}  # fmt: skip

flux_positions = flux.image_positions


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return _theirs(True, SIZES[0])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake: str, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(True)
    model = MISTAKES[mistake](monkeypatch, model) or model
    assert not published.agrees(published.ours(model, SIZES[0]), expected)


@pytest.mark.parametrize(
    ("dev", "changes", "field"),
    [
        (False, {"told_guidance": 3.5}, "told_guidance"),
        (True, {"told_guidance": None}, "told_guidance"),
        (False, {"max_sequence_length": 513}, "max_sequence_length"),
        (False, {"sizes": [(64, 72)]}, "sizes"),
        (False, {"prediction": "epsilon"}, "prediction"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused_by_field(dev: bool, changes: dict[str, Any], field: str) -> None:
    contract = published.contract_of(PIPELINES[dev], 4, SIZES, size_sigmas=None, **changes)
    with pytest.raises(FolderRefusedError, match=rf"^{field}: "):
        published.model_of(PIPELINES[dev], contract)


def test_float16_is_refused(tmp_path: Any) -> None:
    pipeline = tiny_flux_pipelines.build().to(torch.float16)
    with pytest.raises(FolderRefusedError, match=r"^dtype: flux overflows in float16"):
        published.model_of(pipeline, published.contract_of(pipeline, 4, SIZES))
