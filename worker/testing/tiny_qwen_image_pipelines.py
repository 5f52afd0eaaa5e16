"""Qwen-Image pipelines of a few thousand random weights, whole in every part."""

import math

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from worker.testing import tiny_tokenizers
from worker.testing.tiny_flux_pipelines import frozen
from worker.testing.tiny_pipelines import WIDTH

TOKENS = 320
"""A length that holds the longest prompts of tests: of the template's letters, 34 are dropped."""

LIGHTNING = {
    "base_shift": math.log(3), "max_shift": math.log(3), "shift": 1.0, "use_dynamic_shifting": True,
}  # fmt: skip
"""The scheduler that Lightning's card asks for: shift 3 at every size."""
OWN = {
    "base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256, "max_image_seq_len": 8192, "shift": 1.0,
    "shift_terminal": 0.02, "use_dynamic_shifting": True,
}  # fmt: skip
"""The base model's own."""


def build(lightning: bool = True) -> QwenImagePipeline:
    """64×64 pixels ↔ 8×8 latents of 4 channels; always the same weights."""
    tokenizer = tiny_tokenizers.qwen2()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 6, 6),
        )
        vae = AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.1, -0.2, 0.3, -0.4],
            latents_std=[1.5, 1.2, 0.8, 1.1],
        )
        text_encoder = Qwen2_5_VLForConditionalGeneration(_config(len(tokenizer)))
    with torch.no_grad():
        transformer.proj_out.weight *= 6
        for block in transformer.transformer_blocks:
            block.img_mod[1].weight *= 3
            block.attn.add_v_proj.weight *= 6
            block.attn.norm_added_k.weight *= 6
        vae.decoder.conv_out.weight *= 4
    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(LIGHTNING if lightning else OWN)),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return frozen(pipeline)


def _config(words: int) -> Qwen2_5_VLConfig:
    text = {
        "vocab_size": words,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "num_heads": 2,
        "intermediate_size": 2 * WIDTH,
        "out_hidden_size": WIDTH,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [0],
    }
    markers = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **dict.fromkeys(markers, 1))
