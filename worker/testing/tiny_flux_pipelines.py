"""FLUX.1 pipelines of a few thousand random weights, whole in every part."""

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from worker.testing import tiny_pipelines
from worker.testing.tiny_pipelines import WIDTH


def build(guidance_embeds: bool = False) -> FluxPipeline:
    """schnell, or dev with `guidance_embeds`: 64×64 pixels ↔ 8×8 latents of 16 channels; always the same weights."""
    shared = tiny_pipelines.build()
    dev = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        )
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(**(dev if guidance_embeds else {"shift": 1.0})),
            vae=vae(),
            text_encoder=CLIPTextModel(shared.text_encoder.config),
            tokenizer=shared.tokenizer,
            text_encoder_2=shared.text_encoder_3,
            tokenizer_2=shared.tokenizer_3,
            transformer=transformer,
        )
    with torch.no_grad():
        transformer.proj_out.weight *= 4
        if guidance_embeds:
            transformer.time_text_embed.guidance_embedder.linear_2.weight *= 40
    return frozen(pipeline)


def vae() -> AutoencoderKL:
    """FLUX.1's, which Z-Image has too: 16 channels at an eighth of the size, no quantisation convolutions."""
    found = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():
        found.decoder.conv_out.weight *= 3
    return found


def frozen(pipeline: Any) -> Any:
    """Set all networks of `pipeline` to inference, and keep it quiet."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
