"""FLUX.2 [klein]: the engine's pictures are those of diffusers' own pipeline, and no mistake goes unnoticed."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.worker.families import published
from tests.worker.families.compiled import check_compiles
from tests.worker.families.published import Mistake, answered, contracted, decoded, replaced, told, with_tokens
from worker.errors import FolderRefusedError
from worker.families import flux_2_klein
from worker.model_folder.loading import LoadedModel, load
from worker.testing import tiny_qwen3_pipelines
from worker.testing.tiny_qwen3_pipelines import TOKENS

SIZES = [(64, 64), (64, 96), (128, 80)]
PIPELINES = {distilled: tiny_qwen3_pipelines.klein(distilled) for distilled in (True, False)}


def _model(steps: int = 4, distilled: bool = True, **changes: Any) -> LoadedModel:
    pipeline = PIPELINES[distilled]
    contract = published.contract_of(pipeline, steps, SIZES, max_sequence_length=TOKENS, **changes)
    return published.model_of(pipeline, contract)


def _theirs(size: tuple[int, int], steps: int = 4, distilled: bool = True, **options: Any) -> np.ndarray:
    return published.theirs(
        PIPELINES[distilled], size, num_inference_steps=steps, max_sequence_length=TOKENS, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_its_pictures_are_those_of_diffusers(size: tuple[int, int]) -> None:
    model, expected = _model(), _theirs(size)
    assert published.agrees(published.ours(model, size), expected)
    assert published.agrees(published.ours(model, size, staggered=True), expected)


@pytest.mark.slow
def test_a_base_model_takes_guidance() -> None:
    model = _model(6, distilled=False, guidance_scale=4.0)
    expected = _theirs(SIZES[0], 6, distilled=False, guidance_scale=4.0)
    assert published.agrees(published.ours(model, SIZES[0]), expected)


@pytest.mark.slow
def test_a_strict_picture_does_not_depend_on_its_neighbours() -> None:
    published.check_strict(_model(), SIZES[0])


def test_steps_are_replayed_from_graphs() -> None:
    published.check_graphs(_model(), SIZES[0])
    published.check_operators(_model(), SIZES[0])


@pytest.mark.slow
def test_blocks_and_decoder_are_traced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiles(_model(), SIZES[0], monkeypatch)


@pytest.mark.slow
def test_a_saved_folder_is_served_as_it_is(tmp_path: Any) -> None:
    PIPELINES[True].save_pretrained(tmp_path, safe_serialization=True)
    _model().contract.save(tmp_path)
    model = load(str(tmp_path), dtype="float32", sizes=[SIZES[1]])
    assert (model.contract.family, model.contract.sizes) == ("flux2-klein", [SIZES[1]])
    assert published.agrees(published.ours(model, SIZES[1]), _theirs(SIZES[1]))


def _other_patch(latents: torch.Tensor, side: int) -> torch.Tensor:
    """Patches by row, then column, then channel."""
    rows, channels, height, width = latents.shape
    patches = latents.view(rows, side, side, channels // side**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return patches.reshape(rows, channels // side**2, height * side, width * side)


def _nowhere(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(height * width, dtype=torch.int64), torch.zeros(height * width, dtype=torch.int64)


def _by_column(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return positions(height, width, device)[::-1]


positions = flux_2_klein.image_positions
bn = PIPELINES[True].vae.bn

MISTAKES: dict[str, Mistake] = {
    "time": told(lambda latents, t, e, size: (latents, published.later(t), e, size)),
    "time as 1 − σ": told(lambda latents, t, e, size: (latents, 1000 - t, e, size)),
    "sign": answered(torch.neg),
    "row and column exchanged": published.transposed(),
    "no positions": replaced(flux_2_klein, "image_positions", _nowhere),
    "positions by column": replaced(flux_2_klein, "image_positions", _by_column),
    "text reversed": with_tokens(lambda tokens: tokens.flip(0)),
    "padding cut": with_tokens(lambda tokens: tokens[:-32]),
    "layers of the encoder exchanged": with_tokens(lambda tokens: tokens.roll(32, 1)),
    "grid of another size": contracted(size_sigmas=lambda grids: [grids[2], grids[1], grids[0]]),
    "grid of another number of steps": contracted(
        size_sigmas=None, sigmas=lambda sigmas: [*_model(5).contract.sigmas[:2], *sigmas[2:]]
    ),
    "another shift": contracted(size_sigmas=None, sigmas=published.shifted),
    "no mean": decoded(lambda latents: latents - (bn.running_mean / (bn.running_var + 1e-4).sqrt()).view(1, -1, 1, 1)),
    "no variance": decoded(lambda latents: latents / (bn.running_var + 1e-4).sqrt().view(1, -1, 1, 1)),
    "patches by row first": replaced(flux_2_klein, "F", SimpleNamespace(pixel_shuffle=_other_patch)),
    "fresh noise": contracted(sampler="re-noise"),
}


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return _theirs(SIZES[0])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake: str, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    model = MISTAKES[mistake](monkeypatch, model) or model
    assert not published.agrees(published.ours(model, SIZES[0]), expected)


def test_the_patches_are_those_of_pixel_shuffle_but_for_their_order() -> None:
    latents = torch.randn(1, 8, 2, 3)
    assert _other_patch(latents, 2).shape == F.pixel_shuffle(latents, 2).shape


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"told_guidance": 3.5}, "told_guidance"),
        ({"guidance_scale": 4.0}, "guidance_scale"),
        ({"max_sequence_length": 513}, "max_sequence_length"),
        ({"sizes": [(64, 72)]}, "sizes"),
        ({"prediction": "epsilon"}, "prediction"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    contract = published.contract_of(PIPELINES[True], 4, SIZES, **{"size_sigmas": None} | changes)
    with pytest.raises(FolderRefusedError, match=rf"^{field}: "):
        published.model_of(PIPELINES[True], contract)
