"""A family that nobody knew: one class and one registration, and it is served, checked, distilled and exported.

It is PixArt-Σ in small. Unlike the families that come with the worker it has no pooled embedding, masks its prompts and
keeps them at their own length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
from torch import nn
from typer.testing import CliRunner

from distill import config as configuration
from distill import export
from distill.training.trainer import Trainer
from fourstep import app
from jobs.sampling_contract import SamplingContract
from tests.worker.engine.recorded_graphs import RecordedGraphs
from worker.engine.engine import Engine
from worker.errors import FolderRefusedError
from worker.families import registry
from worker.families.base import Denoiser, Family, Size, refuse_other_channels
from worker.families.prompt_embeddings import PromptEmbedding
from worker.generate import generate
from worker.model_folder.loading import load
from worker.sampling.noise_schedule import Prediction
from worker.testing import tiny_pipelines

TOKENS = tiny_pipelines.TOKENS
PROMPTS, SEEDS = ["sun", "a red cat", "a sad big dog"], [5, 6, 7]


class Toy(Family):
    name = "toy"
    pipelines = ("PixArtSigmaPipeline",)
    denoiser = "transformer"
    text_components = ("text_encoder", "tokenizer")
    grid_field = "timesteps"
    lora_targets = ("to_q", "to_v")

    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        tokens, mask, _, _ = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=max_sequence_length
        )
        lengths = mask.sum(1).tolist()
        rows = zip(tokens, mask.bool(), lengths, strict=True)
        return [PromptEmbedding(row[:length], mask=kept[:length]) for row, kept, length in rows]

    def default_sequence_length(self, pipeline: Any) -> int:
        return TOKENS

    def text_lengths(self, max_sequence_length: int | None) -> tuple[int, ...]:
        return (TOKENS // 2, TOKENS)

    def predict(
        self,
        network: Denoiser,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        embeddings: PromptEmbedding,
        size: Size,
    ) -> torch.Tensor:
        return network(
            latents,
            encoder_hidden_states=embeddings.tokens,
            encoder_attention_mask=embeddings.mask,
            timestep=timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]

    def blocks(self, network: Any) -> list[nn.Module]:
        return list(network.transformer_blocks)

    def prediction(self, pipeline: Any) -> Prediction:
        return "epsilon"

    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        pipeline.scheduler.set_timesteps(steps)
        return [*pipeline.scheduler.timesteps.tolist(), -1]

    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        refuse_other_channels(self, pipeline)
        if contract.prediction != "epsilon":
            raise FolderRefusedError(f"prediction: the toy predicts epsilon, not {contract.prediction}")

    def features(self, network: Any) -> tuple[nn.Module, int]:
        return network.norm_out, network.inner_dim

    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        tokens = torch.empty(rows, TOKENS, config.caption_channels)
        latents = torch.empty(rows, config.in_channels, config.sample_size, config.sample_size)
        return latents, PromptEmbedding(tokens, mask=torch.ones(rows, TOKENS, dtype=torch.bool))


def build() -> PixArtSigmaPipeline:
    shared = tiny_pipelines.build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            cross_attention_dim=32,
            sample_size=16,
            caption_channels=2 * tiny_pipelines.WIDTH,
        )
    with torch.no_grad():
        transformer.proj_out.weight *= 4
        for block in transformer.transformer_blocks:
            block.attn2.to_out[0].weight *= 20  # else the pictures hardly listen to their prompts
    pipeline = PixArtSigmaPipeline(
        tokenizer=shared.tokenizer_3,
        text_encoder=shared.text_encoder_3,
        vae=shared.vae,
        transformer=transformer.requires_grad_(False).eval(),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_end=0.012, timestep_spacing="trailing", clip_sample=False
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))
    registry.register(Toy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-toy"
    build().save_pretrained(folder, safe_serialization=True)
    return folder


def test_its_pictures_are_those_of_diffusers(folder: Path) -> None:
    model = load(str(folder), dtype="float32")
    ours = generate(Engine(model, 4), PROMPTS, SEEDS).astype(int)
    images = build()(
        PROMPTS,
        num_inference_steps=4,
        guidance_scale=1.0,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        max_sequence_length=TOKENS,
        clean_caption=False,
        use_resolution_binning=False,
        output_type="np",
    ).images
    theirs = (images * 255).round().astype(int)
    assert min(np.abs(theirs[a] - theirs[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 20
    assert np.abs(ours - theirs).max() <= 1


def test_strict_pictures_do_not_depend_on_the_length_of_other_prompts(folder: Path) -> None:
    model = load(str(folder), dtype="float32", guidance_scale=3.0)
    together = generate(Engine(model, 4), PROMPTS, SEEDS, mode="strict")
    for number, pixels in enumerate(together):
        alone = generate(Engine(model, 4), PROMPTS[number : number + 1], SEEDS[number : number + 1], mode="strict")
        assert np.array_equal(alone[0], pixels)


def test_a_graph_is_captured_for_every_length_of_prompts(folder: Path) -> None:
    recorded, missed = RecordedGraphs(), set()
    engine = Engine(load(str(folder), dtype="float32"), 2, recorded)
    engine.warm_up()
    assert recorded.captured == [(2, 4, 16, 16), (2, 4, 16, 16), (1, 4, 16, 16), (1, 4, 16, 16)]
    engine.runner.measure = lambda measured: missed.add(measured.graph_miss)
    replayed = generate(engine, PROMPTS, SEEDS).astype(int)
    assert missed == {None}
    assert np.abs(replayed - generate(Engine(engine.model, 2), PROMPTS, SEEDS)).max() <= 1


def test_its_folder_is_checked(folder: Path) -> None:
    result = CliRunner().invoke(app, ["models", "check", str(folder)])
    assert (result.exit_code, "toy, predicts epsilon" in result.stdout) == (0, True), result.output


def test_it_is_distilled_and_its_student_is_served(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    config = configuration.DistillConfig.model_validate(
        {
            "family": "toy",
            "teacher": folder,
            "prompts": tmp_path / "prompts.txt",
            "steps": 2,
            "batch": 2,
            "student_grid": {"steps": 4},
            "teacher_grid": {"steps": 6},
            "anchor_k": 2,
            "anchor_target": "x0",
            "max_sequence_length": TOKENS,
            "critic_updates": 1,
            "student_learning_rate": 1e-3,
            "precision": "no",
            "compile": False,
        }
    )
    trainer = Trainer(config, tmp_path / "run")
    assert all(trainer.cycle(update)["diversity"] > 0 for update in range(2))
    export.export(config, trainer.average.module, tmp_path / "student", torch.float32)
    student, teacher = load(str(tmp_path / "student"), dtype="float32"), load(str(folder), dtype="float32")
    assert (student.contract.family, student.contract.timesteps) == ("toy", [999, 749, 499, 249])
    pictures = [generate(Engine(model, 2), ["sun"], [1]) for model in (student, teacher)]
    assert not np.array_equal(*pictures)
