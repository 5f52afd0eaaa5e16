"""Stable Diffusion 1, 2 and XL as they are published in few steps: the engine's pictures are those of diffusers.

Each form is a scheduler, served as a folder without sampling.json is.
"""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from tests.worker.families import published
from tests.worker.families.compiled import check_compiles
from tests.worker.families.published import Mistake, contracted, decoded, replaced, told
from worker.errors import FolderRefusedError
from worker.families import registry, stable_diffusion_xl
from worker.families.network import Network
from worker.families.shared import unet
from worker.model_folder.loading import LoadedModel, load
from worker.sampling import noise
from worker.testing import tiny_sd_pipelines, tiny_sdxl_pipelines

SIZES = [(64, 64), (64, 96)]
PIPELINES: dict[str, Any] = {"sd": tiny_sd_pipelines.build(), "sdxl": tiny_sdxl_pipelines.build()}
ALPHAS = tiny_sd_pipelines.ALPHAS

TRAILING = {"timestep_spacing": "trailing"}
FORMS: dict[str, tuple[type, dict[str, Any], list[int]]] = {
    "Turbo of SDXL": (EulerAncestralDiscreteScheduler, TRAILING, [1, 2, 3, 4]),
    "Turbo of SD, Lightning": (EulerDiscreteScheduler, TRAILING, [1, 2, 4, 8]),
    "Lightning in 1 step": (EulerDiscreteScheduler, TRAILING | {"prediction_type": "sample"}, [1]),
    "Hyper": (DDIMScheduler, TRAILING | {"clip_sample": False, "set_alpha_to_one": False}, [2, 4, 8, 12]),
    "Hyper, unified": (TCDScheduler, {}, [1, 4, 8]),
    "LCM": (LCMScheduler, {}, [1, 2, 4, 6, 8]),
    "base": (EulerDiscreteScheduler, {"timestep_spacing": "leading", "steps_offset": 1}, [4]),
    "v, ancestral": (EulerAncestralDiscreteScheduler, TRAILING | {"prediction_type": "v_prediction"}, [4]),
    "v, TCD": (TCDScheduler, {"prediction_type": "v_prediction"}, [4]),
}
CASES = [(family, form, steps) for form in FORMS for family in PIPELINES for steps in FORMS[form][2]]


def _pipeline(family: str, form: str) -> Any:
    scheduler, options, _ = FORMS[form]
    pipeline = PIPELINES[family]
    pipeline.scheduler = scheduler(**ALPHAS, **options)
    return pipeline


@pytest.mark.parametrize(("family", "form", "steps"), CASES)
def test_the_pictures_are_those_of_diffusers(family: str, form: str, steps: int) -> None:
    pipeline, size = _pipeline(family, form), SIZES[steps % 2]
    model = published.model_of(pipeline, published.contract_of(pipeline, steps, SIZES))
    expected = published.theirs(pipeline, size, num_inference_steps=steps, guidance_scale=1.0)
    assert published.agrees(published.ours(model, size), expected)
    assert published.agrees(published.ours(model, size, staggered=True), expected)


@pytest.mark.parametrize("family", PIPELINES)
@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_the_gamma_of_tcd_is_that_of_the_contract(family: str, gamma: float) -> None:
    pipeline = _pipeline(family, "Hyper, unified")
    model = published.model_of(pipeline, published.contract_of(pipeline, 4, SIZES, gamma=gamma))
    expected = published.theirs(pipeline, SIZES[0], num_inference_steps=4, guidance_scale=1.0, eta=gamma)
    assert published.agrees(published.ours(model, SIZES[0]), expected)


@pytest.mark.parametrize("family", PIPELINES)
def test_guidance_is_that_of_diffusers(family: str) -> None:
    pipeline = _pipeline(family, "Hyper")
    model = published.model_of(pipeline, published.contract_of(pipeline, 8, SIZES, guidance_scale=5.0))
    expected = published.theirs(pipeline, SIZES[0], num_inference_steps=8, guidance_scale=5.0)
    assert published.agrees(published.ours(model, SIZES[0]), expected)


@pytest.mark.parametrize("family", PIPELINES)
def test_a_strict_picture_does_not_depend_on_its_neighbours(family: str) -> None:
    pipeline = _pipeline(family, "Turbo of SDXL")
    published.check_strict(published.model_of(pipeline, published.contract_of(pipeline, 4, SIZES)), SIZES[0])


@pytest.mark.slow
@pytest.mark.parametrize("family", PIPELINES)
@pytest.mark.parametrize("form", ["Turbo of SDXL", "Hyper, unified", "LCM"])
def test_steps_are_replayed_from_graphs(family: str, form: str) -> None:
    pipeline = _pipeline(family, form)
    published.check_graphs(published.model_of(pipeline, published.contract_of(pipeline, 4, SIZES)), SIZES[0])


@pytest.mark.slow
@pytest.mark.parametrize("family", PIPELINES)
def test_blocks_and_decoder_are_traced_whole(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = _pipeline(family, "Turbo of SDXL")
    model = published.model_of(pipeline, published.contract_of(pipeline, 4, SIZES))
    check_compiles(model, SIZES[0], monkeypatch)
    published.check_operators(model, SIZES[0])


@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize("width", [16, 17])
def test_a_latent_consistency_model_is_told_its_guidance(steps: int, width: int, tmp_path: Any) -> None:
    pipeline = tiny_sd_pipelines.build(width)
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    model = load(str(tmp_path), dtype="float32", steps=steps)
    assert (model.contract.family, model.contract.told_guidance) == ("sd", 8.5)
    expected = published.theirs(pipeline, SIZES[0], num_inference_steps=steps, guidance_scale=8.5)
    assert published.agrees(published.ours(model, SIZES[0]), expected)
    other = published.model_of(pipeline, model.contract.model_copy(update={"told_guidance": 8.4}))
    assert not published.agrees(published.ours(other, SIZES[0]), expected)


def test_a_guidance_scale_is_embedded_before_it_is_rounded() -> None:
    pipeline = tiny_sd_pipelines.build(16).to(torch.bfloat16)
    network = Network(registry.of(pipeline), pipeline, told_guidance=7.3)
    (embedding,) = network.encode(["sun"])
    assert embedding.guidance is not None
    assert (embedding.tokens.dtype, embedding.guidance.dtype) == (torch.bfloat16, torch.float32)
    ours = unet.guidance_condition(embedding.guidance[None], 16, torch.bfloat16)
    theirs = pipeline.get_guidance_scale_embedding(torch.tensor([7.3 - 1]), 16).to(torch.bfloat16)
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)


def test_a_chosen_guidance_scale_is_what_a_latent_consistency_model_is_told(tmp_path: Any) -> None:
    pipeline = tiny_sd_pipelines.build(16)
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    model = load(str(tmp_path), dtype="float32", steps=4, guidance_scale=7.0)
    assert (model.contract.told_guidance, model.contract.evaluations) == (7.0, 4)
    expected = published.theirs(pipeline, SIZES[0], num_inference_steps=4, guidance_scale=7.0)
    assert published.agrees(published.ours(model, SIZES[0]), expected)
    with pytest.raises(FolderRefusedError, match=r"^guidance_scale: 7.0, but the denoiser is told its scale"):
        published.model_of(pipeline, model.contract.model_copy(update={"guidance_scale": 7.0}))


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (DPMSolverMultistepScheduler(), "DPMSolverMultistepScheduler is not served"),
        (UniPCMultistepScheduler(), "UniPCMultistepScheduler is not served"),
        (DDPMScheduler(), "DDPMScheduler is not served"),
        (PNDMScheduler(), "PNDMScheduler"),
        (EulerDiscreteScheduler(use_karras_sigmas=True), "use_karras_sigmas"),
        (EulerDiscreteScheduler(timestep_spacing="trailing", final_sigmas_type="sigma_min"), "final_sigmas_type"),
        (EulerDiscreteScheduler(timestep_spacing="linspace"), "none of training"),
        (DDIMScheduler(), "clip_sample"),
        (DDIMScheduler(clip_sample=False, thresholding=True), "thresholding"),
        (LCMScheduler(clip_sample=True), "clip_sample"),
    ],
)
def test_a_scheduler_that_is_no_row_of_the_table_is_refused_by_name(scheduler: Any, said: str) -> None:
    pipeline = tiny_sd_pipelines.build()
    pipeline.scheduler = scheduler
    with pytest.raises(FolderRefusedError, match=rf"^scheduler: .*{said}"):
        published.contract_of(pipeline, 3, SIZES)


def _other_noise(seed: int, shape: tuple[int, int, int], count: int = 1) -> torch.Tensor:
    """The draws of an image in another order."""
    return draw(seed, shape, count).flip(0)


draw = noise.draw

MISTAKES: dict[str, Mistake] = {
    "time": told(lambda latents, t, e, size: (latents, published.later(t), e, size)),
    "sign": published.answered(torch.neg),
    "row and column exchanged": published.transposed(),
    "along the ODE": contracted(sampler="ode"),
    "re-noised": contracted(sampler="re-noise"),
    "TCD": contracted(sampler="tcd", gamma=0.3),
    "full noise at the start": contracted(start="unit"),
    "v for ε": replaced(unet, "PREDICTIONS", {"epsilon": "v"}),
    "grid of LCM": contracted(timesteps=[999, 759, 499, 259]),
    "steps that end below": contracted(step_ends=[748, 498, 248]),
    "noise in another order": replaced(noise, "draw", _other_noise),
    "text reversed": published.with_tokens(lambda tokens: tokens.flip(1)),
    "no scale": decoded(lambda latents: latents * 1.01),
    "guidance": contracted(guidance_scale=1.5),
    "another size told": replaced(
        stable_diffusion_xl, "_size_conditions", lambda latents, size: torch.full((len(latents), 6), 32.0)
    ),
    "no pooled text": published.without_pooled(),
}


ONLY_SDXL = ("another size told", "no pooled text")


def _turbo(family: str) -> LoadedModel:
    pipeline = _pipeline(family, "Turbo of SDXL")
    return published.model_of(pipeline, published.contract_of(pipeline, 4, SIZES))


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    options = {"num_inference_steps": 4, "guidance_scale": 1.0}
    return {name: published.theirs(_pipeline(name, "Turbo of SDXL"), SIZES[0], **options) for name in PIPELINES}


@pytest.mark.parametrize(
    ("family", "mistake"),
    [(family, name) for name in MISTAKES for family in PIPELINES if family == "sdxl" or name not in ONLY_SDXL],
)
def test_a_mistake_is_noticed(
    family: str, mistake: str, expected: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _turbo(family)
    model = MISTAKES[mistake](monkeypatch, model) or model
    if mistake == "v for ε":
        model = _turbo(family)
    assert not published.agrees(published.ours(model, SIZES[0]), expected[family])
