"""Stable Diffusion XL: the engine's pictures are those of diffusers' own pipeline, sampler by sampler."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler, PNDMScheduler

from jobs.sampling_contract import FILE_NAME
from tests.worker.tasks import image_task, pictures
from worker.engine.engine import Engine
from worker.errors import FolderRefusedError
from worker.families import registry
from worker.generate import generate
from worker.model_folder.loading import load, served
from worker.testing import tiny_sdxl_pipelines

PROMPTS = ["a red cat", "sad big dog", "sun"]
SEEDS = [5, 6, 7]
NAMES = {"epsilon": "epsilon", "v_prediction": "v"}


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_sdxl_pipelines.save(tmp_path_factory.mktemp("models") / "tiny-sdxl")
    tiny_sdxl_pipelines.contract().save(folder)
    return folder


@pytest.fixture
def folder(sdxl_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sdxl_folder, tmp_path / "copy"))


def _theirs(pipeline: Any, **options: Any) -> np.ndarray:
    """Return diffusers' pictures of PROMPTS, each from the noise of a generator of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    images = pipeline(PROMPTS, generator=generators, output_type="np", **options).images
    return (images * 255).round().astype(int)


def _differs(ours: np.ndarray, theirs: np.ndarray) -> int:
    """The largest difference of a colour value; the pictures themselves must differ far more from each other."""
    assert min(np.abs(theirs[a] - theirs[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 20
    return int(np.abs(ours.astype(int) - theirs).max())


@pytest.mark.parametrize("guidance_scale", [1.0, 4.5])
@pytest.mark.parametrize("prediction_type", NAMES)
def test_equals_the_diffusers_pipeline_with_ddim(prediction_type: str, guidance_scale: float) -> None:
    pipeline = tiny_sdxl_pipelines.build(prediction_type)
    contract = tiny_sdxl_pipelines.contract(prediction=NAMES[prediction_type], guidance_scale=guidance_scale)
    ours = generate(Engine(served("tiny", "ab", contract, pipeline), 4), PROMPTS, SEEDS)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", steps_offset=0, set_alpha_to_one=True, clip_sample=False
    )
    theirs = _theirs(pipeline, num_inference_steps=4, guidance_scale=guidance_scale)
    difference = _differs(ours, theirs)
    print(f"largest difference to StableDiffusionXLPipeline: {difference} of 255")
    assert difference <= 1


def test_guidance_leads_away_from_the_empty_prompt_where_the_pipeline_says_so() -> None:
    pipeline = tiny_sdxl_pipelines.build()
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    contract = tiny_sdxl_pipelines.contract(guidance_scale=4.5)
    ours = generate(Engine(served("tiny", "ab", contract, pipeline), 4), PROMPTS, SEEDS)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", steps_offset=0, set_alpha_to_one=True, clip_sample=False
    )
    assert _differs(ours, _theirs(pipeline, num_inference_steps=4, guidance_scale=4.5)) <= 1
    pipeline.register_to_config(force_zeros_for_empty_prompt=True)
    zeros = generate(Engine(served("tiny", "ab", contract, pipeline), 4), PROMPTS, SEEDS)
    assert np.abs(zeros.astype(int) - ours).max() > 1


def test_other_sizes_are_told_to_the_network() -> None:
    pipeline = tiny_sdxl_pipelines.build()
    engine = Engine(served("tiny", "ab", tiny_sdxl_pipelines.contract(), pipeline), 4)
    ours = generate(engine, PROMPTS, SEEDS, size=(32, 64))
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", steps_offset=0, set_alpha_to_one=True, clip_sample=False
    )
    theirs = _theirs(pipeline, num_inference_steps=4, guidance_scale=1.0, height=32, width=64)
    assert ours.shape == (3, 32, 64, 3)
    assert _differs(ours, theirs) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("prediction_type", NAMES)
def test_renoising_equals_the_diffusers_pipeline_with_lcm(prediction_type: str) -> None:
    pipeline = tiny_sdxl_pipelines.build(prediction_type)
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    contract = tiny_sdxl_pipelines.contract(
        prediction=NAMES[prediction_type], sampler="re-noise", timesteps=[999, 759, 499, 259]
    )
    engine = Engine(served("tiny", "ab", contract, pipeline), 4)
    theirs = _theirs(pipeline, num_inference_steps=4, guidance_scale=1.0)
    assert _differs(generate(engine, PROMPTS, SEEDS), theirs) <= 1
    deterministic = served("tiny", "ab", contract.model_copy(update={"sampler": "ode"}), pipeline)
    assert np.abs(generate(Engine(deterministic, 4), PROMPTS, SEEDS).astype(int) - theirs).max() > 10


@pytest.mark.slow
def test_a_renoised_picture_does_not_depend_on_its_neighbours_or_on_when_they_joined() -> None:
    contract = tiny_sdxl_pipelines.contract(sampler="re-noise")
    model = served("tiny", "ab", contract, tiny_sdxl_pipelines.build())
    tasks = [image_task(prompt, seed, mode="strict") for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    alone = [pictures(Engine(model, 4), [task])[0].pixels for task in tasks]
    engine = Engine(model, 4)
    outcomes = {}
    for number, task in enumerate(tasks):
        engine.add({str(number): task})
        outcomes |= {outcome.key: outcome for outcome in engine.step()}
    while engine.busy:
        outcomes |= {outcome.key: outcome for outcome in engine.step()}
    for number, pixels in enumerate(alone):
        assert np.array_equal(outcomes[str(number)].pixels, pixels)


def _with_scheduler(folder: Path, scheduler: Any) -> None:
    shutil.rmtree(folder / "scheduler")
    pipeline = tiny_sdxl_pipelines.build()
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(folder, safe_serialization=True)


@pytest.mark.parametrize(
    ("scheduler", "timesteps", "sampler"),
    [(None, [751, 501, 251, 1], "ode"), (LCMScheduler, [999, 759, 499, 259], "re-noise")],
)
def test_without_a_contract_the_own_schedulers_grid_is_served_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, scheduler: Any, timesteps: list[int], sampler: str
) -> None:
    (folder / FILE_NAME).unlink()
    if scheduler:
        _with_scheduler(folder, scheduler)
    with caplog.at_level(logging.WARNING):
        model = load(str(folder), steps=4, guidance_scale=2.0)
    assert FILE_NAME in caplog.text
    contract = model.contract
    assert (contract.timesteps, contract.sampler, contract.sizes) == (timesteps, sampler, [(64, 64)])
    assert (contract.family, contract.prediction, contract.guidance_scale) == ("sdxl", "epsilon", 2.0)
    assert generate(Engine(model, 2), ["sun"], [1]).shape == (1, 64, 64, 3)


def _contract(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: tiny_sdxl_pipelines.contract(**changes).save(folder)


def _no_grid_of_its_own(folder: Path) -> None:
    (folder / FILE_NAME).unlink()
    _with_scheduler(folder, PNDMScheduler)


def _told_twice(folder: Path) -> None:
    _unet(time_cond_proj_dim=8)(folder)
    _contract(told_guidance=8.0, guidance_scale=2.0)(folder)


def _unet(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        pipeline = tiny_sdxl_pipelines.build()
        config = {name: value for name, value in pipeline.unet.config.items() if not name.startswith("_")} | changes
        pipeline.unet = type(pipeline.unet).from_config(config)
        pipeline.save_pretrained(folder, safe_serialization=True)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_contract(prediction="v"), "prediction"),
        (_contract(timesteps=[1000, 749, 499, 249]), "timesteps"),
        (_contract(timesteps=None, sigmas=[1.0, 0.75, 0.5, 0.25, 0.0]), "timesteps"),
        (_contract(family="sd3"), "family"),
        (_contract(max_sequence_length=8), "max_sequence_length"),
        (_contract(sizes=[(64, 62)]), "sizes"),
        (_contract(base_sha256="00" * 32), "base_sha256"),
        (_no_grid_of_its_own, "scheduler"),
        (lambda folder: _with_scheduler(folder, FlowMatchEulerDiscreteScheduler), "scheduler"),
        (_unet(in_channels=9), "unet.in_channels"),
        (_unet(time_cond_proj_dim=8), "told_guidance"),
        (_told_twice, "guidance_scale"),
        (_unet(cross_attention_dim=32), "unet.cross_attention_dim"),
        (_unet(addition_time_embed_dim=4), "unet.projection_class_embeddings_input_dim"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_field(
    folder: Path, spoil: Callable[[Path], None], field: str
) -> None:
    spoil(folder)
    with pytest.raises(FolderRefusedError, match=rf"^{field}: "):
        load(str(folder))


def test_the_compiled_twin_shares_the_weights_and_compiles_every_repeated_block() -> None:
    network = served("tiny", "ab", tiny_sdxl_pipelines.contract(), tiny_sdxl_pipelines.build()).network
    assert network.family is registry.STABLE_DIFFUSION_XL
    twin = network.compiled()
    blocks, originals = ([part for part in one.denoiser.modules() if _repeats(part)] for one in (twin, network))
    assert blocks
    assert all(block._compiled_call_impl is not None for block in (*blocks, twin.vae.decoder))
    assert all(block._compiled_call_impl is None for block in (*originals, network.vae.decoder))
    ours, theirs = ({id(weight) for weight in one.denoiser.parameters()} for one in (twin, network))
    assert ours == theirs


def _repeats(part: torch.nn.Module) -> bool:
    return type(part).__name__ == "BasicTransformerBlock"
