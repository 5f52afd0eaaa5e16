"""Put the trained parts together as a plain diffusers Stable Diffusion 3 pipeline."""

import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from distill.emoji.text_encoders import TextEncoders

SHIFT = 3.0
"""Shift of the scheduler in the folder, as in Stable Diffusion 3."""


def assemble(
    autoencoder: AutoencoderTiny, text: TextEncoders, transformer: SD3Transformer2DModel
) -> StableDiffusion3Pipeline:
    """All seven parts present, so that a bare `from_pretrained` loads the saved folder."""
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=autoencoder.eval(),
        text_encoder=text.clip,
        tokenizer=text.clip_tokenizer,
        text_encoder_2=text.clip_2,
        tokenizer_2=text.clip_tokenizer,
        text_encoder_3=text.t5,
        tokenizer_3=text.t5_tokenizer,
    )


@torch.no_grad()
def decode(autoencoder: AutoencoderTiny, latents: torch.Tensor) -> torch.Tensor:
    """float32 [B, channels, h, w] → float32 [B, 3, H, W] in [−1, 1]."""
    return torch.cat([autoencoder.decode(part).sample for part in latents.split(32)])
