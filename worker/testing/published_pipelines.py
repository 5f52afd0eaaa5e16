"""Stable Diffusion 3.5 Medium and SDXL in their published sizes, with random weights or, on "meta", with none.

Sizes and speed depend on the configurations alone. The tokenizers are small ones of the same lengths.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from worker.testing import tiny_pipelines
from worker.testing.real_size_pipelines import CLIP_TOKENS, T5_TOKENS

ARCHITECTURES = Path(__file__).parents[2] / "distill" / "configs" / "architectures"
KL_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 1024,
}


def stable_diffusion_3(
    device: torch.device | str, dtype: torch.dtype = torch.bfloat16, encoders: bool = True
) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 Medium; without its text encoders, among them T5-XXL, if `encoders` is false."""
    config = json.loads((ARCHITECTURES / "stable-diffusion-3.5-medium/transformer/config.json").read_text())
    small = tiny_pipelines.build()
    small.tokenizer.model_max_length, small.tokenizer_3.model_max_length = CLIP_TOKENS, T5_TOKENS
    with torch.device(device):
        vae = AutoencoderKL(
            **KL_VAE, latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
            use_post_quant_conv=False,
        )  # fmt: skip
        parts = {
            "transformer": SD3Transformer2DModel.from_config(config),
            "vae": vae,
            "text_encoder": CLIPTextModelWithProjection(clip_large()) if encoders else None,
            "text_encoder_2": CLIPTextModelWithProjection(clip_big()) if encoders else None,
            "text_encoder_3": T5EncoderModel(t5_xxl()) if encoders else None,
        }
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    tokenizers = {"tokenizer": small.tokenizer, "tokenizer_2": small.tokenizer, "tokenizer_3": small.tokenizer_3}
    return _cast(StableDiffusion3Pipeline(scheduler=scheduler, **tokenizers, **parts), dtype)


def stable_diffusion_xl(
    device: torch.device | str, dtype: torch.dtype = torch.bfloat16, encoders: bool = True
) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL; without its text encoders if `encoders` is false."""
    tokenizer = tiny_pipelines.build().tokenizer
    tokenizer.model_max_length = CLIP_TOKENS
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=6 * 256 + 1280,
        )  # fmt: skip
        parts = {
            "unet": unet,
            "vae": AutoencoderKL(**KL_VAE, latent_channels=4, scaling_factor=0.13025),
            "text_encoder": CLIPTextModel(clip_large()) if encoders else None,
            "text_encoder_2": CLIPTextModelWithProjection(clip_big()) if encoders else None,
        }
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    pipeline = StableDiffusionXLPipeline(
        scheduler=scheduler, tokenizer=tokenizer, tokenizer_2=tokenizer, add_watermarker=False, **parts
    )
    return _cast(pipeline, dtype)


def clip_large() -> CLIPTextConfig:
    """CLIP ViT-L/14's text encoder."""
    return CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768,
        bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip


def clip_big() -> CLIPTextConfig:
    """OpenCLIP ViT-bigG/14's text encoder."""
    return CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280,
        hidden_act="gelu", bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip


def t5_xxl() -> T5Config:
    """The encoder of T5 v1.1 XXL."""
    return T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip


def _cast(pipeline: Any, dtype: torch.dtype) -> Any:
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(dtype).requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
