"""Stable Diffusion XL: a UNet that predicts ε or v over DDPM's alphas and is told the image's size."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.families.base import (
    Denoiser,
    Family,
    Size,
    refuse_other_channels,
    refuse_other_sides,
    refuse_other_told_guidance,
    refuse_two_guidances,
)
from worker.families.prompt_embeddings import PromptEmbedding
from worker.families.shared import unet
from worker.sampling.noise_schedule import Prediction

SIZE_CONDITIONS = 6
LCM_GUIDANCE = 8.0


class StableDiffusionXL(Family):
    """Two CLIP encoders, their token embeddings side by side, the pooled embedding from the second."""

    name = "sdxl"
    pipelines = ("StableDiffusionXLPipeline",)
    denoiser = "unet"
    text_components = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    grid_field = "timesteps"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")

    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        """`max_sequence_length` does not count: both CLIP encoders have one length."""
        tokens, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), device=pipeline.text_encoder.device, do_classifier_free_guidance=False
        )
        return [PromptEmbedding(*parts) for parts in zip(tokens, pooled, strict=True)]

    def negative(self, pipeline: Any, empty: PromptEmbedding) -> PromptEmbedding:
        """The embedding of the `empty` prompt, or zeros where the pipeline is configured so."""
        return empty.map(torch.zeros_like) if pipeline.config.force_zeros_for_empty_prompt else empty

    def predict(
        self, network: Denoiser, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding, size: Size
    ) -> torch.Tensor:
        told = {}
        if embeddings.guidance is not None:
            width = network.config.time_cond_proj_dim  # type: ignore[attr-defined]
            told["timestep_cond"] = unet.guidance_condition(embeddings.guidance, width, latents.dtype)
        conditions = {"text_embeds": embeddings.pooled, "time_ids": _size_conditions(latents, size)}
        return network(latents, timesteps, embeddings.tokens, added_cond_kwargs=conditions, return_dict=False, **told)[
            0
        ]

    def told_guidance(self, pipeline: Any) -> float | None:
        return None if pipeline.unet.config.time_cond_proj_dim is None else LCM_GUIDANCE

    def blocks(self, network: Any) -> list[nn.Module]:
        return unet.transformer_blocks(network)

    def prediction(self, pipeline: Any) -> Prediction:
        return unet.prediction(pipeline)

    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        return unet.own_grid(pipeline, steps)

    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        config, text_2 = pipeline.unet.config, pipeline.text_encoder_2.config
        unet.refuse_other_unet(contract, pipeline)
        refuse_other_channels(self, pipeline)
        refuse_other_told_guidance(contract, config.time_cond_proj_dim is not None, "unet.time_cond_proj_dim")
        refuse_two_guidances(contract)
        if config.addition_embed_type != "text_time":
            raise FolderRefusedError(f"unet.addition_embed_type: {config.addition_embed_type}, but SDXL's is text_time")
        told = SIZE_CONDITIONS * config.addition_time_embed_dim + text_2.projection_dim
        if config.projection_class_embeddings_input_dim != told:
            raise FolderRefusedError(
                f"unet.projection_class_embeddings_input_dim: {config.projection_class_embeddings_input_dim},"
                f" but six sizes and the pooled prompt make {told}"
            )
        unet.refuse_other_width(pipeline, pipeline.text_encoder.config.hidden_size + text_2.hidden_size)
        refuse_other_sides(self, contract.sizes, pipeline)

    def serving_scheduler(self, pipeline: Any) -> Any:
        """DDIM, with which plain diffusers samples `num_inference_steps` equal steps as training does."""
        return DDIMScheduler.from_config(
            pipeline.scheduler.config,
            timestep_spacing="trailing",
            steps_offset=0,
            set_alpha_to_one=True,
            clip_sample=False,
        )

    def features(self, network: Any) -> tuple[nn.Module, int]:
        """The bottleneck (DMD2)."""
        return network.mid_block, network.config.block_out_channels[-1]

    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        pooled = config.projection_class_embeddings_input_dim - SIZE_CONDITIONS * config.addition_time_embed_dim
        return torch.empty(rows, config.in_channels, config.sample_size, config.sample_size), PromptEmbedding(
            torch.empty(rows, unet.CLIP_TOKENS, config.cross_attention_dim), torch.empty(rows, pooled)
        )


def _size_conditions(latents: torch.Tensor, size: Size) -> torch.Tensor:
    """Return original size, top left corner of the crop and target size, in pixels: float32 [B, 6].

    Filled on the device: a copy from the host cannot be part of a CUDA graph.
    """
    rows, device = len(latents), latents.device
    sides = [torch.full((rows, 1), float(side), device=device) for side in size]
    return torch.cat([*sides, torch.zeros(rows, 2, device=device), *sides], 1)
