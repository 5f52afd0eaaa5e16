"""Stable Diffusion XL pipelines of a few thousand random weights, whole in every part."""

from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from jobs.sampling_contract import SamplingContract
from worker.testing import tiny_pipelines
from worker.testing.tiny_pipelines import WIDTH


def build(prediction_type: str = "epsilon") -> StableDiffusionXLPipeline:
    """64×64 pixels ↔ 16×16 latents of 4 channels, SDXL's alphas; always the same weights."""
    shared = tiny_pipelines.build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = StableDiffusionXLPipeline(
            vae=shared.vae,
            text_encoder=CLIPTextModel(shared.text_encoder.config),
            text_encoder_2=shared.text_encoder_2,
            tokenizer=shared.tokenizer,
            tokenizer_2=shared.tokenizer_2,
            unet=_unet(),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                timestep_spacing="leading",
                steps_offset=1,
                prediction_type=prediction_type,
            ),
            add_watermarker=False,
        )
    for part in (pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def contract(**changes: Any) -> SamplingContract:
    """The contract of a four-step student of `build`'s architecture."""
    fields: dict[str, Any] = {
        "method": "dp-dmd",
        "family": "sdxl",
        "prediction": "epsilon",
        "steps": 4,
        "timesteps": [999, 749, 499, 249],
        "sizes": [(64, 64), (32, 64)],
    }
    return SamplingContract.model_validate(fields | changes)


def save(folder: Path, prediction_type: str = "epsilon") -> Path:
    """Write a teacher's folder and return it."""
    build(prediction_type).save_pretrained(folder, safe_serialization=True)
    return folder


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 2),
        norm_num_groups=4,
        cross_attention_dim=2 * WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
