"""The networks of a Stable Diffusion 3 pipeline as functions of tensors."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from worker.device.fast_gelu import use_fast_gelu
from worker.device.shared_weights import copy_sharing_weights
from worker.families.prompt_embeddings import PromptEmbedding


class StableDiffusion3:
    """Text encoders, denoiser and decoder of a loaded `StableDiffusion3Pipeline`; holds no state of a request."""

    def __init__(self, pipeline: Any, max_sequence_length: int) -> None:
        self._pipeline = pipeline
        self._transformer = pipeline.transformer
        # oneDNN and cuDNN convolve in this layout; others would be converted to it and back in every layer.
        self._vae = pipeline.vae.to(memory_format=torch.channels_last)
        self._max_sequence_length = max_sequence_length
        self.device: torch.device = pipeline.transformer.device
        self.dtype: torch.dtype = pipeline.transformer.dtype

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, latent height, latent width) of an image of `height` × `width` pixels."""
        factor = self._pipeline.vae_scale_factor
        return self._pipeline.transformer.config.in_channels, height // factor, width // factor

    def encode(self, prompts: Sequence[str]) -> list[PromptEmbedding]:
        """One embedding for each prompt; `max_sequence_length` is the length of the T5 block, in tokens."""
        tokens, _, pooled, _ = self._pipeline.encode_prompt(
            list(prompts),
            None,
            None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self._max_sequence_length,
        )
        # Cloned, so that a kept embedding does not keep its whole batch.
        tokens, pooled = tokens.to(self.dtype), pooled.to(self.dtype)
        return [PromptEmbedding(t.clone(), p.clone()) for t, p in zip(tokens, pooled, strict=True)]

    def negative(self, empty: PromptEmbedding) -> PromptEmbedding:
        """What guidance leads away from: the embedding of the `empty` prompt."""
        return empty

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding) -> torch.Tensor:
        """The velocity, in the network's dtype, for latents [B, C, h, w] at timesteps [B], with B embeddings."""
        return self._transformer(
            hidden_states=latents.to(self.dtype),
            timestep=timesteps,
            encoder_hidden_states=embeddings.tokens,
            pooled_projections=embeddings.pooled,
            return_dict=False,
        )[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """fp32 latents [B, C, h, w] → fp32 images [B, 3, H, W], about −1 to 1."""
        vae = self._vae
        unscaled = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        return vae.decode(unscaled.to(vae.dtype), return_dict=False)[0].float()

    def compiled(self) -> "StableDiffusion3":
        """A twin on the same weights, whose transformer blocks and decoder compile when first run at a shape."""
        twin = copy.copy(self)
        twin._transformer, twin._vae = copy_sharing_weights(self._transformer), copy_sharing_weights(self._vae)
        if self.device.type == "cpu":
            use_fast_gelu(twin._transformer)
        # One by one: the blocks are alike, so that the first one's code serves them all.
        for part in (*twin._transformer.transformer_blocks, twin._vae.decoder):
            part.compile(fullgraph=True, dynamic=False)
        return twin
