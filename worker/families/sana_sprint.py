"""SANA-Sprint: a transformer with linear attention that predicts the flow and is told its guidance scale."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import SanaSprintPipeline
from torch import nn

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.families.base import (
    Denoiser,
    Family,
    Size,
    refuse_float16,
    refuse_other_channels,
    refuse_other_prediction,
    refuse_other_sides,
    refuse_other_told_guidance,
    refuse_two_guidances,
)
from worker.families.prompt_embeddings import PromptEmbedding
from worker.sampling.noise_schedule import Prediction

TOKENS = 300
GUIDANCE = 4.5
MEDIAN_STEPS = 2
"""The number of steps with a level of its own in the middle."""


class SanaSprint(Family):
    """Gemma's last hidden states behind an instruction that is the same for all; always 300, with a mask.

    The network is a consistency model in the angles of trigflow. Divided by the sum of cosine and sine, its state is
    the flow's at σ = sin / (sin + cos), which is what the network is told and predicts the flow of.
    """

    name = "sana-sprint"
    pipelines = ("SanaSprintPipeline",)
    denoiser = "transformer"
    text_components = ("text_encoder", "tokenizer")
    grid_field = "sigmas"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "conv_inverted", "conv_point")

    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        tokens, mask = pipeline.encode_prompt(
            list(prompts),
            device=pipeline.text_encoder.device,
            max_sequence_length=max_sequence_length or TOKENS,
            complex_human_instruction=_instruction(),
        )
        return [PromptEmbedding(row, mask=real) for row, real in zip(tokens, mask.bool(), strict=True)]

    def token_limit(self, tokenizer: str, model_max_length: int, max_sequence_length: int | None) -> int:
        """The first is that of the beginning, the second the instruction's last."""
        return (max_sequence_length or TOKENS) - 1

    def default_sequence_length(self, pipeline: Any) -> int:
        return TOKENS

    def told_guidance(self, pipeline: Any) -> float:
        return GUIDANCE

    def predict(
        self, network: Denoiser, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding, size: Size
    ) -> torch.Tensor:
        assert embeddings.guidance is not None
        scale = network.config.guidance_embeds_scale  # type: ignore[attr-defined]
        return network(
            latents,
            encoder_hidden_states=embeddings.tokens,
            encoder_attention_mask=embeddings.mask,
            guidance=embeddings.guidance.to(latents.dtype) * scale,  # rounded first, as in training
            timestep=timesteps / 1000,
            return_dict=False,
        )[0]

    def blocks(self, network: Any) -> list[nn.Module]:
        return list(network.transformer_blocks)

    def sides(self, pipeline: Any) -> tuple[int, int | None]:
        return pipeline.transformer.config.patch_size * self.scale_factor(pipeline), None

    def prediction(self, pipeline: Any) -> Prediction:
        return "flow"

    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        return levels(pipeline.scheduler, steps)

    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        config = pipeline.transformer.config
        refuse_other_prediction(self, contract)
        refuse_float16(self, pipeline)
        refuse_other_channels(self, pipeline)
        refuse_other_told_guidance(contract, bool(config.guidance_embeds), "transformer.guidance_embeds")
        refuse_two_guidances(contract)
        if not config.guidance_embeds:
            raise FolderRefusedError("transformer.guidance_embeds: false, but SANA-Sprint is told its guidance scale")
        if contract.max_sequence_length not in (None, TOKENS):
            raise FolderRefusedError(f"max_sequence_length: {contract.max_sequence_length}, but SANA's is {TOKENS}")
        refuse_other_sides(self, contract.sizes, pipeline)

    def features(self, network: Any) -> tuple[nn.Module, int]:
        return network.norm_out, network.config.num_attention_heads * network.config.attention_head_dim

    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        length = max_sequence_length or TOKENS
        tokens, mask = torch.empty(rows, length, config.caption_channels), torch.ones(rows, length, dtype=torch.bool)
        latents = torch.empty(rows, config.in_channels, config.sample_size, config.sample_size)
        return latents, PromptEmbedding(tokens, mask=mask, guidance=torch.empty(rows))


def levels(scheduler: Any, steps: int) -> list[float]:
    """Return the noise levels σ of `steps` steps of an SCMScheduler, down to 0.

    Two steps have an angle of their own in the middle, the scheduler's default; others are evenly spaced.
    """
    middle = {} if steps == MEDIAN_STEPS else {"intermediate_timesteps": None}
    scheduler.set_timesteps(steps, **middle)
    angles = scheduler.timesteps.tolist()
    # The first angle is π/2 but for 4e-6, and no level is above 1.
    return [min(1.0, math.sin(angle) / (math.sin(angle) + math.cos(angle))) for angle in angles]


def _instruction() -> list[str]:
    """The text before every prompt: the default of the pipeline's call, which its `encode_prompt` does not add."""
    return inspect.signature(SanaSprintPipeline.__call__).parameters["complex_human_instruction"].default
