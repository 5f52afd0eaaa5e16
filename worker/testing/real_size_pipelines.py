"""Pipelines of a few layers with the published models' sizes of inputs and outputs.

Latents, prompt embeddings, pictures and grids are as large as those of Stable Diffusion 3.5 Medium and SDXL at 1024²;
the networks between them have a few million random weights, so that a whole run takes minutes on two cores.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from worker.testing import tiny_pipelines

CLIP_TOKENS = 77
T5_TOKENS = 256
SIDE = 1024
"""Pixels along a side of a picture."""


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """Latents [16, 128, 128], tokens [333, 4096], pooled [2048], pictures of 1024²; always the same weights."""
    small = tiny_pipelines.build()
    clip_tokenizer, t5_tokenizer = small.tokenizer, small.tokenizer_3
    clip_tokenizer.model_max_length, t5_tokenizer.model_max_length = CLIP_TOKENS, T5_TOKENS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=128, patch_size=8, in_channels=16, out_channels=16, num_layers=1,
                attention_head_dim=16, num_attention_heads=2, joint_attention_dim=4096,
                caption_projection_dim=32, pooled_projection_dim=2048, pos_embed_max_size=16,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(16),
            text_encoder=CLIPTextModelWithProjection(_clip(clip_tokenizer, 768)),
            tokenizer=clip_tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(_clip(clip_tokenizer, 1280)),
            tokenizer_2=clip_tokenizer,
            text_encoder_3=T5EncoderModel(
                T5Config(
                    vocab_size=len(t5_tokenizer), d_model=4096, d_kv=16, num_heads=1, d_ff=16, num_layers=1,
                    dropout_rate=0.0,
                )
            ),
            tokenizer_3=t5_tokenizer,
        )  # fmt: skip
    return _frozen(pipeline)


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """Latents [4, 128, 128], tokens [77, 2048], pooled [1280], pictures of 1024²; the published configuration's
    schedule and negative prompt of zeros; always the same weights."""
    tokenizer = tiny_pipelines.build().tokenizer
    tokenizer.model_max_length = CLIP_TOKENS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(4),
            text_encoder=CLIPTextModel(_clip(tokenizer, 768)),
            text_encoder_2=CLIPTextModelWithProjection(_clip(tokenizer, 1280)),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=128, block_out_channels=(4, 4, 8), layers_per_block=1, norm_num_groups=4,
                down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
                attention_head_dim=(1, 1, 2), cross_attention_dim=2048, use_linear_projection=True,
                addition_embed_type="text_time", addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=6 * 256 + 1280,
            ),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading",
                steps_offset=1,
            ),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )  # fmt: skip
    return _frozen(pipeline)


PIPELINES = {"sd3": stable_diffusion_3, "sdxl": stable_diffusion_xl}
"""Family → its pipeline."""


def save(family: str, folder: Path) -> Path:
    """Write the teacher's folder of a family and return it."""
    PIPELINES[family]().save_pretrained(folder, safe_serialization=True)
    return folder


def _frozen(pipeline: Any) -> Any:
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _vae(channels: int) -> AutoencoderTiny:
    """Eight pixels a latent along a side."""
    return AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 0, 0, 0),
        latent_channels=channels,
    )


def _clip(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=CLIP_TOKENS,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
