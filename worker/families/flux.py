"""FLUX.1, schnell and dev: a transformer over text and image tokens that predicts the flow."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.families.base import (
    Denoiser,
    Family,
    Size,
    refuse_float16,
    refuse_other_prediction,
    refuse_other_sides,
    refuse_other_told_guidance,
)
from worker.families.prompt_embeddings import PromptEmbedding
from worker.families.shared.patches import SIDE, image_positions, packed, unpacked
from worker.sampling.noise_schedule import Prediction
from worker.sampling.schedulers import flow_grid

SCHNELL_TOKENS, DEV_TOKENS = 256, 512
"""T5 tokens that each was trained with."""
DEV_GUIDANCE = 3.5
MEGAPIXEL_LATENTS = 128
"""Latents along the side of an image of the native size in training memory estimates."""


class Flux(Family):
    """CLIP's pooled embedding and T5's tokens, whose padding is attended to: all prompts have one length.

    dev was distilled to guidance: it is told the scale. schnell is told none.
    """

    name = "flux"
    pipelines = ("FluxPipeline",)
    denoiser = "transformer"
    text_components = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    grid_field = "sigmas"
    lora_targets = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
        "net.0.proj", "net.2", "proj_mlp", "proj_out",
    )  # fmt: skip

    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        """`max_sequence_length` is T5's."""
        tokens, pooled, _ = pipeline.encode_prompt(
            list(prompts), device=pipeline.text_encoder.device, max_sequence_length=max_sequence_length
        )
        return [PromptEmbedding(*parts) for parts in zip(tokens, pooled, strict=True)]

    def token_limit(self, tokenizer: str, model_max_length: int, max_sequence_length: int | None) -> int:
        """T5 reads as many as it is told to, CLIP as many as it was made for."""
        return max_sequence_length or DEV_TOKENS if tokenizer == "tokenizer_2" else model_max_length

    def default_sequence_length(self, pipeline: Any) -> int:
        """The length of training, or less when the T5 tokenizer was made for less."""
        length = DEV_TOKENS if pipeline.transformer.config.guidance_embeds else SCHNELL_TOKENS
        return min(length, pipeline.tokenizer_2.model_max_length) if pipeline.tokenizer_2 else length

    def told_guidance(self, pipeline: Any) -> float | None:
        return DEV_GUIDANCE if pipeline.transformer.config.guidance_embeds else None

    def predict(
        self, network: Denoiser, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding, size: Size
    ) -> torch.Tensor:
        height, width = (side // SIDE for side in latents.shape[-2:])
        rows, columns = image_positions(height, width, latents.device)
        tokens = network(
            hidden_states=packed(latents),
            # Cast before it is divided, as in training: in bfloat16 the quotient would be rounded differently.
            timestep=timesteps.to(latents.dtype) / 1000,
            guidance=embeddings.guidance,
            pooled_projections=embeddings.pooled,
            encoder_hidden_states=embeddings.tokens,
            txt_ids=torch.zeros(embeddings.length, 3, device=latents.device),
            img_ids=torch.stack([torch.zeros_like(rows), rows, columns], 1),
            return_dict=False,
        )[0]
        return unpacked(tokens, latents)

    def blocks(self, network: Any) -> list[nn.Module]:
        return [*network.transformer_blocks, *network.single_transformer_blocks]

    def latent_shape(self, pipeline: Any, size: Size) -> tuple[int, int, int]:
        _, height, width = super().latent_shape(pipeline, size)
        return pipeline.vae.config.latent_channels, height, width

    def sides(self, pipeline: Any) -> tuple[int, int | None]:
        return SIDE * self.scale_factor(pipeline), None

    def native_size(self, pipeline: Any) -> Size:
        """One megapixel, as in training."""
        side = pipeline.default_sample_size * self.scale_factor(pipeline)
        return side, side

    def prediction(self, pipeline: Any) -> Prediction:
        return "flow"

    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        """dev's levels depend on the number of image tokens."""
        return flow_grid(pipeline.scheduler, steps, self._tokens(pipeline, size))

    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        config = pipeline.transformer.config
        refuse_other_prediction(self, contract)
        refuse_float16(self, pipeline)
        refuse_other_told_guidance(contract, config.guidance_embeds, "transformer.guidance_embeds")
        values = SIDE**2 * pipeline.vae.config.latent_channels
        if config.in_channels != values:
            raise FolderRefusedError(f"transformer.in_channels: {config.in_channels}, but a patch has {values} values")
        if contract.max_sequence_length and contract.max_sequence_length > DEV_TOKENS:
            raise FolderRefusedError(f"max_sequence_length: {contract.max_sequence_length} is above {DEV_TOKENS}")
        refuse_other_sides(self, contract.sizes, pipeline)

    def features(self, network: Any) -> tuple[nn.Module, int]:
        return network.norm_out, network.inner_dim

    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        tokens = max_sequence_length or (DEV_TOKENS if config.guidance_embeds else SCHNELL_TOKENS)
        latents = torch.empty(rows, config.in_channels // SIDE**2, MEGAPIXEL_LATENTS, MEGAPIXEL_LATENTS)
        return latents, PromptEmbedding(
            torch.empty(rows, tokens, config.joint_attention_dim),
            torch.empty(rows, config.pooled_projection_dim),
            guidance=torch.empty(rows) if config.guidance_embeds else None,
        )

    def _tokens(self, pipeline: Any, size: Size) -> int:
        return (size[0] // self.scale_factor(pipeline) // SIDE) * (size[1] // self.scale_factor(pipeline) // SIDE)
