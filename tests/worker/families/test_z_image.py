"""Z-Image: the engine's pictures are those of diffusers' own pipeline, and no mistake goes unnoticed."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.families import published
from tests.worker.families.compiled import check_compiles
from tests.worker.families.published import Mistake, answered, contracted, decoded, replaced, told, with_tokens
from worker.errors import FolderRefusedError
from worker.families import z_image
from worker.families.prompt_embeddings import stacked
from worker.families.shared import rotary
from worker.model_folder.loading import LoadedModel, load
from worker.testing import tiny_qwen3_pipelines
from worker.testing.tiny_qwen3_pipelines import TOKENS

SIZES = [(64, 64), (64, 96), (128, 80)]
PIPELINE = tiny_qwen3_pipelines.z_image()
REFERENCE = tiny_qwen3_pipelines.z_image()
"""The same weights with diffusers' own attention."""


def _model(steps: int = 8, **changes: Any) -> LoadedModel:
    contract = published.contract_of(PIPELINE, steps, SIZES, max_sequence_length=TOKENS, **changes)
    return published.model_of(PIPELINE, contract)


def _theirs(size: tuple[int, int], steps: int = 8, guidance_scale: float = 0.0) -> np.ndarray:
    options = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "max_sequence_length": TOKENS}
    return published.theirs(REFERENCE, size, **options)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_its_pictures_are_those_of_diffusers(size: tuple[int, int]) -> None:
    model, expected = _model(), _theirs(size)
    assert published.agrees(published.ours(model, size), expected)
    assert published.agrees(published.ours(model, size, staggered=True), expected)


@pytest.mark.slow
def test_guidance_counts_from_one() -> None:
    model, expected = _model(6, guidance_scale=4.0), _theirs(SIZES[0], 6, guidance_scale=3.0)
    assert published.agrees(published.ours(model, SIZES[0]), expected)


@pytest.mark.slow
def test_a_strict_picture_does_not_depend_on_the_length_of_other_prompts() -> None:
    published.check_strict(_model(), SIZES[0])


@pytest.mark.slow
def test_steps_are_replayed_from_graphs_for_each_length_of_prompts() -> None:
    assert z_image.ZImage().text_lengths(512) == (128, 256, 512)
    published.check_graphs(_model(), SIZES[0], lengths=2)
    published.check_operators(_model(), SIZES[0])


@pytest.mark.slow
def test_blocks_and_decoder_are_traced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiles(_model(), SIZES[0], monkeypatch)


@pytest.mark.slow
def test_a_saved_folder_is_served_as_it_is(tmp_path: Any) -> None:
    REFERENCE.save_pretrained(tmp_path, safe_serialization=True)
    _model().contract.save(tmp_path)
    model = load(str(tmp_path), dtype="float32")
    assert (model.contract.family, model.contract.steps) == ("z-image", 8)
    assert published.agrees(published.ours(model, SIZES[1]), _theirs(SIZES[1]))


def test_a_trainers_role_is_asked_by_lists() -> None:
    """It can only be called; the answer is the same."""
    network = _model().network
    latents, time = torch.randn(2, 16, 8, 8), torch.tensor([900.0, 300.0])
    embeddings = stacked(network.encode(["sun", published.PROMPTS[2]]))
    role = REFERENCE.transformer.forward
    with torch.inference_mode():
        asked = network.family.predict(role, latents, time, embeddings, (64, 64))
        torch.testing.assert_close(network.predict(latents, time, embeddings), asked, atol=1e-5, rtol=1e-5)


def _nowhere(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(height * width, dtype=torch.int64), torch.zeros(height * width, dtype=torch.int64)


def _by_column(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return positions(height, width, device)[::-1]


def _channel_first(latents: torch.Tensor) -> torch.Tensor:
    """A patch in FLUX.1's order."""
    patches = torch.nn.functional.pixel_unshuffle(latents, 2)
    return torch.nn.functional.pixel_shuffle(patches.unflatten(1, (4, 16)).transpose(1, 2).flatten(1, 2), 2)


positions = z_image.image_positions


def _zero(vector: str) -> Mistake:
    """Put zeros in the place of a learnt vector of the transformer."""

    def spoil(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
        zeros = torch.nn.Parameter(torch.zeros_like(getattr(PIPELINE.transformer, vector)), requires_grad=False)
        monkeypatch.setitem(PIPELINE.transformer._parameters, vector, zeros)

    return spoil


MISTAKES: dict[str, Mistake] = {
    "time": told(lambda latents, t, e, size: (latents, published.later(t), e, size)),
    "σ for 1 − σ": told(lambda latents, t, e, size: (latents, 1000 - t, e, size)),
    "sign": answered(torch.neg),
    "patches by channel first": told(lambda latents, t, e, size: (_channel_first(latents), t, e, size)),
    "row and column exchanged": published.transposed(),
    "no positions": replaced(z_image, "image_positions", _nowhere),
    "positions by column": replaced(z_image, "image_positions", _by_column),
    "angles turned back": replaced(rotary, "rotated", published.turned_back),
    "captions filled up to 64": replaced(z_image, "MULTIPLE", 64),
    "captions filled up to 16": replaced(z_image, "MULTIPLE", 16),
    "padding attended": published.all_attended(TOKENS),
    "captions filled up with zeros": _zero("cap_pad_token"),
    "images filled up with zeros": _zero("x_pad_token"),
    "text reversed": with_tokens(lambda tokens: tokens.flip(0)),
    "text zero": with_tokens(torch.zeros_like),
    "another shift": contracted(sigmas=published.shifted),
    "shifted twice": contracted(sigmas=lambda sigmas: [3 * s / (1 + 2 * s) for s in sigmas]),
    "no scale": decoded(lambda latents: latents * 0.3611),
    "no shift": decoded(lambda latents: latents - 0.1159 * 0.3611),
    "guidance of base": contracted(guidance_scale=2.0),
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


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"told_guidance": 3.5}, "told_guidance"),
        ({"max_sequence_length": 513}, "max_sequence_length"),
        ({"sizes": [(64, 72)]}, "sizes"),
        ({"sizes": [(64, 1040)]}, "sizes"),
        ({"prediction": "epsilon"}, "prediction"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(FolderRefusedError, match=rf"^{field}: "):
        published.model_of(PIPELINE, published.contract_of(PIPELINE, 8, SIZES, **changes))
