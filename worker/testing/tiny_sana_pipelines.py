"""SANA-Sprint pipelines of a few thousand random weights, whole in every part."""

import torch
from diffusers import AutoencoderDC, SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
from transformers import Gemma2Config, Gemma2Model

from worker.testing import tiny_tokenizers
from worker.testing.tiny_flux_pipelines import frozen
from worker.testing.tiny_pipelines import WIDTH


def build() -> SanaSprintPipeline:
    """64×64 pixels ↔ 32×32 latents of 4 channels; always the same weights."""
    tokenizer = tiny_tokenizers.gemma()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=16,
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=WIDTH,
            caption_channels=WIDTH,
            sample_size=32,
            patch_size=1,
            guidance_embeds=True,
            guidance_embeds_scale=0.1,
            qk_norm="rms_norm_across_heads",
        )
        vae = AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            attention_head_dim=4,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41407,
        )
        text_encoder = Gemma2Model(
            Gemma2Config(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=16,
                query_pre_attn_scalar=16,
            )
        )
    with torch.no_grad():
        transformer.proj_out.weight *= 4
        for block in transformer.transformer_blocks:
            block.attn2.to_v.weight *= 6
            block.attn2.norm_q.weight *= 3
        vae.decoder.conv_out.weight *= 6
    pipeline = SanaSprintPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=SCMScheduler()
    )
    return frozen(pipeline)
