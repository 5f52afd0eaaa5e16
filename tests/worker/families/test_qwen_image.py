"""Qwen-Image: the engine's pictures are those of diffusers' own pipeline, and no mistake goes unnoticed."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.families import published
from tests.worker.families.compiled import check_compiles
from tests.worker.families.published import Mistake, answered, contracted, decoded, replaced, told, with_tokens
from worker.errors import FolderRefusedError
from worker.families import qwen_image
from worker.families.shared import patches, rotary
from worker.model_folder.loading import LoadedModel, load
from worker.sampling.guidance import classifier_free_guidance
from worker.testing import tiny_qwen_image_pipelines
from worker.testing.tiny_qwen_image_pipelines import TOKENS

SIZES = [(64, 64), (64, 96), (128, 80)]
PIPELINES = {lightning: tiny_qwen_image_pipelines.build(lightning) for lightning in (True, False)}
REFERENCES = {lightning: tiny_qwen_image_pipelines.build(lightning) for lightning in (True, False)}
"""The same weights with diffusers' own attention."""


def _model(steps: int = 4, lightning: bool = True, **changes: Any) -> LoadedModel:
    pipeline = PIPELINES[lightning]
    contract = published.contract_of(pipeline, steps, SIZES, max_sequence_length=TOKENS, **changes)
    return published.model_of(pipeline, contract)


def _theirs(size: tuple[int, int], steps: int = 4, lightning: bool = True, **options: Any) -> np.ndarray:
    options = {"num_inference_steps": steps, "max_sequence_length": TOKENS, "true_cfg_scale": 1.0} | options
    return published.theirs(REFERENCES[lightning], size, **options)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [4, 8])
def test_its_pictures_are_those_of_diffusers(steps: int, size: tuple[int, int]) -> None:
    model, expected = _model(steps), _theirs(size, steps)
    assert published.agrees(published.ours(model, size), expected)
    assert published.agrees(published.ours(model, size, staggered=True), expected)


def test_lightnings_levels_are_those_of_its_card() -> None:
    assert _model(4).contract.sigmas == pytest.approx([1, 0.9, 0.75, 0.5, 0], abs=1e-6)
    assert _model(8).contract.sigmas == pytest.approx([1, 0.95454, 0.9, 0.83333, 0.75, 0.64286, 0.5, 0.3, 0], abs=1e-5)


@pytest.fixture(scope="module")
def guided() -> np.ndarray:
    return _theirs(SIZES[1], 4, lightning=False, true_cfg_scale=4.0, negative_prompt=[" "] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [None, "plain guidance", "empty negative prompt", "grid of another size"])
def test_the_base_models_guidance_keeps_the_length_of_each_patch(
    mistake: str | None, guided: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(4, lightning=False, guidance_scale=4.0)
    if mistake == "plain guidance":
        plain = lambda self, *given: classifier_free_guidance(*given)  # noqa: E731
        monkeypatch.setattr(qwen_image.QwenImage, "guide", plain)
    if mistake == "empty negative prompt":
        model = _model(4, lightning=False, guidance_scale=4.0, negative_prompt="")
    if mistake == "grid of another size":
        model = _model(4, lightning=False, guidance_scale=4.0, size_sigmas=None)
    assert published.agrees(published.ours(model, SIZES[1]), guided) == (mistake is None)


@pytest.mark.slow
def test_a_strict_picture_does_not_depend_on_the_length_of_other_prompts() -> None:
    published.check_strict(_model(), SIZES[0])


@pytest.mark.slow
def test_steps_are_replayed_from_graphs_for_each_length_of_prompts() -> None:
    assert qwen_image.QwenImage().text_lengths(512) == (128, 512)
    published.check_graphs(_model(), SIZES[0], lengths=2)
    published.check_operators(_model(), SIZES[0])


@pytest.mark.slow
def test_blocks_and_decoder_are_traced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiles(_model(), SIZES[0], monkeypatch)


def test_a_frame_is_decoded_by_convolutions_of_two_dimensions() -> None:
    network = _model().network
    latents = torch.randn(2, 4, 6, 8)
    with torch.inference_mode():
        ours = network.decode(latents)
        theirs = network.family.decode(REFERENCES[True].vae, latents)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (vae.latents_mean, vae.latents_std))
        frames = REFERENCES[True].vae.decode((latents * std + mean).unsqueeze(2)).sample.squeeze(2)
    torch.testing.assert_close(theirs, frames)
    torch.testing.assert_close(ours, frames, atol=1e-5, rtol=1e-5)
    causal = [name for name, part in network.vae.decoder.named_modules() if isinstance(part, torch.nn.Conv3d)]
    assert all(name.endswith("time_conv") for name in causal)


@pytest.mark.slow
def test_a_saved_folder_is_served_as_it_is(tmp_path: Any) -> None:
    REFERENCES[True].save_pretrained(tmp_path, safe_serialization=True)
    _model().contract.save(tmp_path)
    model = load(str(tmp_path), dtype="float32")
    assert (model.contract.family, model.contract.negative_prompt) == ("qwen-image", " ")
    assert published.agrees(published.ours(model, SIZES[1]), _theirs(SIZES[1]))


def _permuted(latents: torch.Tensor) -> torch.Tensor:
    """Tokens whose values are ordered by row, column, then channel, as Z-Image's are."""
    return patches.packed(latents).unflatten(2, (-1, 4)).transpose(2, 3).flatten(2)


vae = PIPELINES[True].vae.config

MISTAKES: dict[str, Mistake] = {
    "time": told(lambda latents, t, e, size: (latents, published.later(t), e, size)),
    "time as 1 − σ": told(lambda latents, t, e, size: (latents, 1000 - t, e, size)),
    "sign": answered(torch.neg),
    "packing": replaced(qwen_image, "packed", _permuted),
    "row and column exchanged": published.transposed(),
    "angles turned back": replaced(rotary, "rotated", published.turned_back),
    "no angles": replaced(rotary, "rotated", lambda x, rotary: x),
    "padding attended": published.all_attended(TOKENS),
    "text reversed": with_tokens(lambda tokens: tokens.flip(0)),
    "text zero": with_tokens(torch.zeros_like),
    "a token of the template too much": replaced(PIPELINES[True], "prompt_template_encode_start_idx", 33),
    "another template": replaced(PIPELINES[True], "prompt_template_encode", "<|im_start|>" + 40 * "." + "{}"),
    "another shift": contracted(sigmas=published.shifted),
    "not shifted": contracted(sigmas=[1.0, 0.75, 0.5, 0.25, 0.0]),
    "no mean": decoded(
        lambda x: x - (torch.tensor(vae.latents_mean) / torch.tensor(vae.latents_std)).view(1, -1, 1, 1)
    ),
    "no deviation": decoded(lambda x: x / torch.tensor(vae.latents_std).view(1, -1, 1, 1)),
    "guidance": contracted(guidance_scale=1.5),
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
        ({"max_sequence_length": 1025}, "max_sequence_length"),
        ({"sizes": [(64, 72)]}, "sizes"),
        ({"prediction": "epsilon"}, "prediction"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(FolderRefusedError, match=rf"^{field}: "):
        published.model_of(PIPELINES[True], published.contract_of(PIPELINES[True], 4, SIZES, **changes))


@pytest.mark.parametrize("setting", qwen_image.OTHER_MODELS)
def test_a_transformer_that_edits_pictures_is_refused(setting: str) -> None:
    pipeline = tiny_qwen_image_pipelines.build()
    pipeline.transformer.register_to_config(**{setting: True})
    with pytest.raises(FolderRefusedError, match=rf"^transformer\.{setting}: "):
        published.model_of(pipeline, published.contract_of(pipeline, 4, SIZES))
