"""SANA-Sprint: the engine's pictures are those of diffusers' own pipeline, and no mistake goes unnoticed."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.families import published
from tests.worker.families.compiled import check_compiles
from tests.worker.families.published import Mistake, answered, contracted, decoded, replaced, told, with_tokens
from worker.errors import FolderRefusedError
from worker.families import sana_sprint
from worker.model_folder.loading import LoadedModel, load
from worker.sampling import noise
from worker.testing import tiny_sana_pipelines

SIZES = [(64, 64), (64, 96)]
PIPELINE = tiny_sana_pipelines.build()
EVEN: dict[str, Any] = {"intermediate_timesteps": None}
OPTIONS: dict[int, dict[str, Any]] = {1: EVEN, 2: {}, 3: EVEN, 4: EVEN}
"""The call for each number of steps, as the card has it."""

encode_prompt = PIPELINE.encode_prompt
_encoded: dict[Any, Any] = {}


def _remembered(prompts: Any, *given: Any, **options: Any) -> Any:
    """The instruction is 1700 letters here, and each is a token: encode every batch of prompts only once."""
    key = (*prompts, options.get("max_sequence_length"), bool(options.get("complex_human_instruction")))
    if key not in _encoded:
        _encoded[key] = encode_prompt(prompts, *given, **options)
    return _encoded[key]


PIPELINE.encode_prompt = _remembered


def _model(steps: int = 2, **changes: Any) -> LoadedModel:
    return published.model_of(PIPELINE, published.contract_of(PIPELINE, steps, SIZES, **changes))


def _theirs(size: tuple[int, int], steps: int = 2, guidance_scale: float = 4.5) -> np.ndarray:
    options = OPTIONS[steps] | {"guidance_scale": guidance_scale, "use_resolution_binning": False}
    return published.theirs(PIPELINE, size, num_inference_steps=steps, **options)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", OPTIONS)
def test_its_pictures_are_those_of_diffusers(steps: int, size: tuple[int, int]) -> None:
    model, expected = _model(steps), _theirs(size, steps)
    assert published.agrees(published.ours(model, size), expected)
    assert published.agrees(published.ours(model, size, staggered=True), expected)


def test_the_levels_are_the_angles_of_its_scheduler() -> None:
    assert _model(2).contract.sigmas == pytest.approx([1, 0.7827, 0], abs=1e-4)
    assert _model(4).contract.sigmas == pytest.approx([1, 0.7071, 0.5, 0.2929, 0], abs=1e-4)


@pytest.mark.slow
def test_a_strict_picture_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sana_sprint, "_instruction", lambda: ["User Prompt: "])
    published.check_strict(_model(), SIZES[0])


@pytest.mark.slow
def test_steps_are_replayed_from_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sana_sprint, "_instruction", lambda: ["User Prompt: "])
    published.check_graphs(_model(), SIZES[0])
    published.check_operators(_model(), SIZES[0])


@pytest.mark.slow
def test_blocks_and_decoder_are_traced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sana_sprint, "_instruction", lambda: ["User Prompt: "])
    check_compiles(_model(), SIZES[0], monkeypatch)


@pytest.mark.slow
def test_a_saved_folder_is_served_as_it_is(tmp_path: Any) -> None:
    PIPELINE.save_pretrained(tmp_path, safe_serialization=True)
    model = load(str(tmp_path), dtype="float32", steps=2, sizes=SIZES)
    contract = model.contract
    assert (contract.family, contract.told_guidance, contract.sampler) == ("sana-sprint", 4.5, "re-noise")
    assert published.agrees(published.ours(model, SIZES[1]), _theirs(SIZES[1]))


def _other_noise(seed: int, shape: tuple[int, int, int], count: int = 1) -> torch.Tensor:
    return draw(seed, shape, count).flip(0)


draw = noise.draw

MISTAKES: dict[str, Mistake] = {
    "time": told(lambda latents, t, e, size: (latents, published.later(t), e, size)),
    "time in thousandths": told(lambda latents, t, e, size: (latents, 1000 * t, e, size)),
    "time as an angle": told(lambda latents, t, e, size: (latents, t * 1.5708, e, size)),
    "sign": answered(torch.neg),
    "row and column exchanged": published.transposed(),
    "padding attended": published.all_attended(300),
    "text reversed": with_tokens(lambda tokens: tokens.flip(0)),
    "text zero": with_tokens(torch.zeros_like),
    "no instruction": replaced(sana_sprint, "_instruction", lambda: None),
    "guidance": contracted(told_guidance=4.0),
    "guidance unscaled": contracted(told_guidance=45.0),
    "even angles": contracted(sigmas=[1.0, 0.5, 0.0]),
    "angles for levels": contracted(sigmas=[1.0, 1.3 / 1.5708, 0.0]),
    "along the ODE": contracted(sampler="ode"),
    "noise in another order": replaced(noise, "draw", _other_noise),
    "no scale": decoded(lambda latents: latents * 0.41407),
    "sigma_data left in": decoded(lambda latents: latents * 0.5),
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
        ({"told_guidance": None}, "told_guidance"),
        ({"max_sequence_length": 77}, "max_sequence_length"),
        ({"sizes": [(64, 65)]}, "sizes"),
        ({"prediction": "epsilon"}, "prediction"),
        ({"guidance_scale": 2.0}, "guidance_scale"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(FolderRefusedError, match=rf"^{field}: "):
        published.model_of(PIPELINE, published.contract_of(PIPELINE, 2, SIZES, **changes))
