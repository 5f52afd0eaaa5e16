"""Stable Diffusion 1 and 2 pipelines of a few thousand random weights, whole in every part."""

from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel

from worker.testing import tiny_pipelines
from worker.testing.tiny_pipelines import WIDTH

ALPHAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build(time_cond_proj_dim: int | None = None) -> Any:
    """SD-Turbo, or a latent consistency model that is told its guidance in so many values; always the same weights.

    64×64 pixels ↔ 16×16 latents of 4 channels.
    """
    shared = tiny_pipelines.build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=(1, 2),
            norm_num_groups=4,
            cross_attention_dim=WIDTH,
            time_cond_proj_dim=time_cond_proj_dim,
        )
        text_encoder = CLIPTextModel(shared.text_encoder.config)
    parts = {
        "vae": shared.vae,
        "text_encoder": text_encoder.requires_grad_(False).eval(),
        "tokenizer": shared.tokenizer,
        "unet": unet.requires_grad_(False).eval(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    if time_cond_proj_dim is None:
        scheduler = EulerDiscreteScheduler(timestep_spacing="trailing", **ALPHAS)
        pipeline: Any = StableDiffusionPipeline(scheduler=scheduler, **parts)
    else:
        pipeline = LatentConsistencyModelPipeline(scheduler=LCMScheduler(**ALPHAS), **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
