"""The networks of a Stable Diffusion XL pipeline as functions of tensors."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from worker.device.shared_weights import copy_sharing_weights
from worker.families.prompt_embeddings import PromptEmbedding


class StableDiffusionXL:
    """Text encoders, denoiser and decoder of a loaded `StableDiffusionXLPipeline`; holds no state of a request."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._unet: Any = pipeline.unet
        # oneDNN and cuDNN convolve in this layout; others would be converted to it and back in every layer.
        self._vae: Any = pipeline.vae.to(memory_format=torch.channels_last)
        self.device: torch.device = pipeline.unet.device
        self.dtype: torch.dtype = pipeline.unet.dtype

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, latent height, latent width) of an image of `height` × `width` pixels."""
        factor = self._pipeline.vae_scale_factor
        return self._pipeline.unet.config.in_channels, height // factor, width // factor

    def encode(self, prompts: Sequence[str]) -> list[PromptEmbedding]:
        """One embedding for each prompt: the tokens of both CLIP encoders side by side, pooled from the second."""
        tokens, _, pooled, _ = self._pipeline.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=False
        )
        # Cloned, so that a kept embedding does not keep its whole batch.
        tokens, pooled = tokens.to(self.dtype), pooled.to(self.dtype)
        return [PromptEmbedding(t.clone(), p.clone()) for t, p in zip(tokens, pooled, strict=True)]

    def negative(self, empty: PromptEmbedding) -> PromptEmbedding:
        """What guidance leads away from, given the embedding of the `empty` prompt: that, or zeros where the pipeline
        is configured so."""
        if not self._pipeline.config.force_zeros_for_empty_prompt:
            return empty
        return PromptEmbedding(torch.zeros_like(empty.tokens), torch.zeros_like(empty.pooled))

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding) -> torch.Tensor:
        """ε or v, in the network's dtype, for latents [B, C, h, w] at timesteps [B], with B embeddings."""
        return self._unet(
            latents.to(self.dtype),
            timesteps,
            embeddings.tokens,
            added_cond_kwargs={"text_embeds": embeddings.pooled, "time_ids": self._sizes(latents)},
            return_dict=False,
        )[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """fp32 latents [B, C, h, w] → fp32 images [B, 3, H, W], about −1 to 1."""
        vae = self._vae
        unscaled = latents / vae.config.scaling_factor
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if mean is not None and std is not None:
            unscaled = unscaled * _channels(std, latents) + _channels(mean, latents)
        return vae.decode(unscaled.to(vae.dtype), return_dict=False)[0].float()

    def compiled(self) -> "StableDiffusionXL":
        """A twin on the same weights, whose transformer blocks and decoder compile when first run at a shape."""
        twin = copy.copy(self)
        twin._unet, twin._vae = copy_sharing_weights(self._unet), copy_sharing_weights(self._vae)
        twin._unet.compile_repeated_blocks(fullgraph=True, dynamic=False)
        twin._vae.decoder.compile(fullgraph=True, dynamic=False)
        return twin

    def _sizes(self, latents: torch.Tensor) -> torch.Tensor:
        """SDXL's size conditions, fp32 [B, 6]: original size, top left corner of the crop, target size, in pixels.

        Filled on the device: a copy from the host cannot be part of a CUDA graph.
        """
        rows, _, height, width = latents.shape
        factor = self._pipeline.vae_scale_factor
        sides = [torch.full((rows, 1), float(factor * side), device=latents.device) for side in (height, width)]
        return torch.cat([*sides, torch.zeros(rows, 2, device=latents.device), *sides], 1)


def _channels(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
