"""Appendix C of the paper as a whole run: a tiny SDXL teacher, its student, and plain diffusers."""

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusionXLPipeline

from distill import config as configuration
from distill import prompt_embeddings, runs
from distill.method.guidance import conditional, guided
from distill.training.trainer import Trainer
from jobs.sampling_contract import SamplingContract
from tests.distill.tiny_runs import SDXL_SETTINGS, losses_told
from worker.families import registry
from worker.families.prompt_embeddings import stacked
from worker.sampling.noise_schedule import trailing_grid
from worker.testing import tiny_sdxl_pipelines


@pytest.fixture(scope="module")
def student_of(tmp_path_factory):
    """A finished run for settings that differ from SDXL_SETTINGS: (teacher folder, run folder, student folder)."""

    def train(prediction_type: str = "epsilon", **changes) -> tuple[Path, Path, Path]:
        folder = tmp_path_factory.mktemp("sdxl")
        teacher = tiny_sdxl_pipelines.save(folder / "teacher", prediction_type)
        (folder / "prompts.txt").write_text("\n".join(f"prompt {word}" for word in "abcdefghijklmnopqrst"))
        paths = {"teacher": str(teacher), "prompts": str(folder / "prompts.txt")}
        (folder / "config.yaml").write_text(yaml.safe_dump(paths | SDXL_SETTINGS | changes))
        runs.start(folder / "config.yaml", folder / "run", folder / "student")
        return teacher, folder / "run", folder / "student"

    return train


@pytest.fixture(scope="module")
def student(student_of) -> tuple[Path, Path, Path]:
    return student_of()


@pytest.mark.slow
def test_student_has_learned_and_its_grid_is_the_training_grid(student):
    teacher, run, out = student
    log = losses_told(run)
    assert all(line["diversity"] > 0 and line["dmd"] > 0 and line["grad_norm"] > 0 for line in log)
    before = StableDiffusionXLPipeline.from_pretrained(teacher).unet.state_dict()
    after = StableDiffusionXLPipeline.from_pretrained(out).unet.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    contract = SamplingContract.load(out)
    assert (contract.family, contract.prediction, contract.timesteps) == ("sdxl", "epsilon", [999, 749, 499, 249])
    grid = configuration.load(run / "config.yaml").hyperparameters().student_grid
    assert (*map(float, contract.timesteps), -1.0) == grid


@pytest.mark.slow
def test_plain_diffusers_samples_what_training_samples(student):
    """The exported folder's own scheduler, text encoders and size conditions, without a word about the grid."""
    out = student[2]
    pipeline = StableDiffusionXLPipeline.from_pretrained(out)
    pipeline.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = pipeline(
        "a cat", num_inference_steps=4, guidance_scale=1.0, latents=noise.clone(), output_type="latent"
    ).images
    family = registry.of(pipeline)
    embeddings = stacked(family.encode(pipeline, ["a cat"], 77))
    schedule = family.noise_schedule(pipeline)
    predict = conditional(pipeline.unet, embeddings, size=(64, 64), family=family, schedule=schedule)
    with torch.no_grad():
        ours = schedule.solve(predict, noise, trailing_grid(4))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_guided_teacher_samples_what_plain_diffusers_samples(student):
    """Classifier-free guidance against the encoders' own "" and not against zeros."""
    pipeline = tiny_sdxl_pipelines.build()
    family = registry.of(pipeline)
    pipeline.scheduler = family.serving_scheduler(pipeline)
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = pipeline(
        "a cat",
        negative_prompt="",
        num_inference_steps=10,
        guidance_scale=8.0,
        latents=noise.clone(),
        output_type="latent",
    ).images
    schedule = family.noise_schedule(pipeline)
    positive, negative = (
        conditional(pipeline.unet, stacked([embedding]), size=(64, 64), family=family, schedule=schedule)
        for embedding in family.encode(pipeline, ["a cat", ""], 77)
    )
    with torch.no_grad():
        ours = schedule.solve(guided(positive, negative, 8.0), noise, trailing_grid(10))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dp-dmd-nodetach", {}),
        ("dmd", {}),
        ("dmd-perceptual", {"perceptual": {"network": "tests.distill.feature_network:two_maps"}}),
        ("dmd-gan", {}),
        ("step1-regression", {"critic_updates": 0}),
    ],
)
def test_every_method_trains_it(student_of, method, settings):
    _, run, out = student_of(method=method, steps=1, **settings)
    assert SamplingContract.load(out).method == method
    assert losses_told(run)[-1]["grad_norm"] > 0


@pytest.mark.slow
def test_a_teacher_of_v_makes_a_student_of_v(student_of):
    _, _, out = student_of("v_prediction", steps=1, grad_step="random")
    assert SamplingContract.load(out).prediction == "v"
    assert StableDiffusionXLPipeline.from_pretrained(out).scheduler.config.prediction_type == "v_prediction"


def test_embeddings_are_those_of_the_pipeline():
    pipeline = tiny_sdxl_pipelines.build()
    cached = prompt_embeddings.encode(pipeline, ["a cat", "", "a cat"], 77)
    embedding = cached.of("a cat")
    expected, _, expected_pooled, _ = pipeline.encode_prompt("a cat", do_classifier_free_guidance=False)
    torch.testing.assert_close(embedding.tokens, expected, rtol=0.01, atol=0.01)
    torch.testing.assert_close(embedding.pooled, expected_pooled, rtol=0.01, atol=0.01)
    assert len(cached.unique.tokens) == 2


@pytest.mark.slow
@pytest.mark.parametrize("zeros", [True, False])
def test_a_run_is_guided_as_its_teacher_is_served(tmp_path, zeros):
    """Away from zeros where the pipeline is configured so, as the published SDXL is; else from the empty prompt."""
    pipeline = tiny_sdxl_pipelines.build()
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    pipeline.scheduler = registry.of(pipeline).serving_scheduler(pipeline)
    pipeline.save_pretrained(tmp_path / "teacher", safe_serialization=True)
    (tmp_path / "prompts.txt").write_text("a cat\n")
    paths = {"teacher": str(tmp_path / "teacher"), "prompts": str(tmp_path / "prompts.txt")}
    config = configuration.DistillConfig.model_validate(SDXL_SETTINGS | paths | {"batch": 1})
    trainer = Trainer(config, tmp_path / "run")
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = pipeline(
        "a cat", num_inference_steps=10, guidance_scale=8.0, latents=noise.clone(), output_type="latent"
    ).images
    ours = trainer.teacher_sample(noise, trainer.prompt(torch.tensor([0])))
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)  # embeddings are kept in bfloat16
