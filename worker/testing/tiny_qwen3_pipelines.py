"""Pipelines with Qwen3 as their text encoder, of a few thousand random weights: FLUX.2 [klein] and Z-Image."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from worker.testing import tiny_flux_pipelines, tiny_tokenizers
from worker.testing.tiny_flux_pipelines import frozen
from worker.testing.tiny_pipelines import WIDTH

TOKENS = 192
"""A length that holds the longest prompts of tests: five multiples of 32, and one more."""


def klein(is_distilled: bool = True) -> Flux2KleinPipeline:
    """64×64 pixels ↔ 4×4 latents of 32 channels; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = Flux2Transformer2DModel(
            in_channels=32,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * WIDTH,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        vae = AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=8,
            norm_num_groups=4,
        )
        vae.bn.running_mean.normal_(std=0.3)
        vae.bn.running_var.uniform_(0.5, 2.0)
        tokenizer = tiny_tokenizers.qwen2()
        pipeline = Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=vae,
            # The hidden states after 27 layers are asked for.
            text_encoder=_vivid(Qwen3ForCausalLM(_config(tokenizer, layers=28))),
            tokenizer=tokenizer,
            transformer=transformer,
            is_distilled=is_distilled,
        )
    with torch.no_grad():
        transformer.proj_out.weight *= 4
        vae.decoder.conv_out.weight *= 3
        for block in transformer.transformer_blocks:
            block.attn.add_v_proj.weight *= 8
            block.attn.norm_added_k.weight *= 3
    return frozen(pipeline)


def z_image() -> ZImagePipeline:
    """64×64 pixels ↔ 8×8 latents of 16 channels; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = ZImageTransformer2DModel(
            in_channels=16,
            dim=WIDTH,
            n_heads=2,
            n_kv_heads=2,
            n_layers=2,
            n_refiner_layers=1,
            cap_feat_dim=WIDTH,
            axes_dims=[4, 6, 6],
            axes_lens=[640, 64, 64],
        )
        # They begin as zeros, which would hide mistakes.
        transformer.x_pad_token.data.normal_()
        transformer.cap_pad_token.data.normal_()
        tokenizer = tiny_tokenizers.qwen2()
        pipeline = ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=tiny_flux_pipelines.vae(),
            text_encoder=_vivid(Qwen3Model(_config(tokenizer, layers=3))),
            tokenizer=tokenizer,
            transformer=transformer,
        )
    with torch.no_grad():
        transformer.all_final_layer["2-1"].linear.weight *= 6
    return frozen(pipeline)


def _config(tokenizer: Any, layers: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )


@torch.no_grad()
def _vivid(encoder: Any) -> Any:
    """Random weights hardly tell prompts apart."""
    for weight in encoder.parameters():
        if weight.ndim == 2:
            weight *= 6
    return encoder
