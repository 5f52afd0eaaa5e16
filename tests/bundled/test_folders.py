"""The bundled folders: whole, small, without pickles, and the same picture here as in plain diffusers."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from distill.emoji.__main__ import EXAMPLES
from jobs.sampling_contract import SamplingContract
from jobs.settings import BUNDLED_MODEL
from tests.running import HEIGHT, WIDTH
from worker.families.prompt_embeddings import stacked
from worker.model_folder import loading
from worker.model_folder.weights_hash import weights_sha256
from worker.sampling import noise
from worker.sampling import step_table as sampler

STUDENT = BUNDLED_MODEL
TEACHER = BUNDLED_MODEL.parent / "emoji-teacher"


@pytest.mark.slow
@pytest.mark.parametrize("folder", [TEACHER, STUDENT], ids=lambda folder: folder.name)
def test_plain_diffusers_loads_it(folder: Path) -> None:
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder)
    assert pipeline.text_encoder_3 is not None
    with torch.no_grad():
        picture = pipeline("a red apple", num_inference_steps=2, max_sequence_length=16).images[0]
    assert picture.size == (WIDTH, HEIGHT)


def test_only_safetensors_and_at_most_sixty_megabytes() -> None:
    files = [path for path in BUNDLED_MODEL.parent.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}
    assert sum(path.stat().st_size for path in files) <= 60e6


def test_the_student_says_how_it_was_made() -> None:
    contract = SamplingContract.load(STUDENT)
    assert (contract.method, contract.steps, contract.guidance_scale) == ("dp-dmd", 4, 1.0)
    assert contract.teacher is not None
    assert contract.teacher.sha256 == weights_sha256(TEACHER)
    assert contract.base_sha256 == weights_sha256(STUDENT)


@pytest.mark.parametrize("folder", [TEACHER, STUDENT], ids=lambda folder: folder.name)
def test_its_examples_are_those_of_the_recipe(folder: Path) -> None:
    assert SamplingContract.load(folder).examples == list(EXAMPLES)


@pytest.mark.slow
def test_worker_and_diffusers_sample_the_same_latents() -> None:
    """Same initial noise, embeddings and grid, in float32."""
    model = loading.load(str(STUDENT), device="cpu", dtype="float32")
    prompts = ["a smiling cat face", "fruit"]
    start = torch.cat([noise.draw(seed, model.network.latent_shape(HEIGHT, WIDTH)) for seed in (7, 8)])
    embeddings = stacked(model.network.encode(prompts))
    with torch.no_grad():
        ours = sampler.sample(model.table, lambda latents, t: model.network.predict(latents, t, embeddings), start)
    pipeline = StableDiffusion3Pipeline.from_pretrained(STUDENT)
    pipeline.scheduler.set_shift(1.0)  # the grid is taken as it is
    theirs = pipeline(
        prompts,
        sigmas=model.contract.sigmas[:-1],
        num_inference_steps=model.contract.steps,
        guidance_scale=1.0,
        latents=start,
        max_sequence_length=model.contract.max_sequence_length,
        output_type="latent",
    ).images
    difference = float((ours - theirs).abs().max())
    print(f"largest difference: {difference:.2e}")
    assert difference < 1e-4
