"""Stable Diffusion 1 and 2 and what was distilled from them: a UNet that predicts ε or v over DDPM's alphas."""

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
    refuse_other_channels,
    refuse_other_sides,
    refuse_other_told_guidance,
    refuse_two_guidances,
)
from worker.families.prompt_embeddings import PromptEmbedding
from worker.families.shared import unet
from worker.sampling.noise_schedule import Prediction

LCM_GUIDANCE = 8.5


class StableDiffusion(Family):
    """One CLIP encoder. No safety checker runs, whether the folder has one or not."""

    name = "sd"
    pipelines = ("StableDiffusionPipeline", "LatentConsistencyModelPipeline")
    denoiser = "unet"
    text_components = ("text_encoder", "tokenizer")
    unused_components = ("safety_checker", "feature_extractor", "image_encoder")
    load_options = {"requires_safety_checker": False}  # noqa: RUF012
    grid_field = "timesteps"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")

    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        """`max_sequence_length` does not count: CLIP has one length."""
        tokens, _ = pipeline.encode_prompt(list(prompts), pipeline.text_encoder.device, 1, False)
        return [PromptEmbedding(row) for row in tokens]

    def told_guidance(self, pipeline: Any) -> float | None:
        return None if pipeline.unet.config.time_cond_proj_dim is None else LCM_GUIDANCE

    def predict(
        self, network: Denoiser, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding, size: Size
    ) -> torch.Tensor:
        told = None
        if embeddings.guidance is not None:
            width = network.config.time_cond_proj_dim  # type: ignore[attr-defined]
            told = unet.guidance_condition(embeddings.guidance, width, latents.dtype)
        return network(latents, timesteps, embeddings.tokens, timestep_cond=told, return_dict=False)[0]

    def blocks(self, network: Any) -> list[nn.Module]:
        return unet.transformer_blocks(network)

    def prediction(self, pipeline: Any) -> Prediction:
        return unet.prediction(pipeline)

    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        return unet.own_grid(pipeline, steps)

    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        config = pipeline.unet.config
        unet.refuse_other_unet(contract, pipeline)
        refuse_other_channels(self, pipeline)
        refuse_other_told_guidance(contract, config.time_cond_proj_dim is not None, "unet.time_cond_proj_dim")
        refuse_two_guidances(contract)
        for field in ("addition_embed_type", "class_embed_type"):
            if config.get(field) is not None:
                raise FolderRefusedError(f"unet.{field}: {config[field]}, but Stable Diffusion's is none")
        unet.refuse_other_width(pipeline, pipeline.text_encoder.config.hidden_size)
        refuse_other_sides(self, contract.sizes, pipeline)

    def features(self, network: Any) -> tuple[nn.Module, int]:
        """The bottleneck (DMD2)."""
        return network.mid_block, network.config.block_out_channels[-1]

    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        latents = torch.empty(rows, config.in_channels, config.sample_size, config.sample_size)
        return latents, PromptEmbedding(torch.empty(rows, unet.CLIP_TOKENS, config.cross_attention_dim))
