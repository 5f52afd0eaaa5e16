"""Stable Diffusion 3 and 3.5: a transformer that predicts the flow."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.families.base import Denoiser, Family, Size, refuse_other_channels, refuse_other_sides
from worker.families.prompt_embeddings import PromptEmbedding
from worker.sampling.noise_schedule import Prediction

CLIP_TOKENS = 77
DEFAULT_T5_TOKENS = 256
MAX_T5_TOKENS = 512


class StableDiffusion3(Family):
    """Two CLIP encoders and T5; the token embeddings are those of CLIP, then those of T5."""

    name = "sd3"
    pipelines = ("StableDiffusion3Pipeline",)
    denoiser = "transformer"
    text_components = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    optional_components = ("text_encoder_3", "tokenizer_3")
    grid_field = "sigmas"
    lora_targets = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
        "net.0.proj", "net.2",
    )  # fmt: skip

    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        """`max_sequence_length` is the length of the T5 block."""
        tokens, _, pooled, _ = pipeline.encode_prompt(
            list(prompts),
            None,
            None,
            device=pipeline.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=max_sequence_length,
        )
        return [PromptEmbedding(*parts) for parts in zip(tokens, pooled, strict=True)]

    def default_sequence_length(self, pipeline: Any) -> int:
        """diffusers' default of 256 tokens, or fewer when the T5 tokenizer was made for fewer."""
        tokenizer = pipeline.tokenizer_3
        return min(DEFAULT_T5_TOKENS, tokenizer.model_max_length) if tokenizer else DEFAULT_T5_TOKENS

    def token_limit(self, tokenizer: str, model_max_length: int, max_sequence_length: int | None) -> int:
        """`max_sequence_length` is the length of the T5 block alone."""
        return max_sequence_length or DEFAULT_T5_TOKENS if tokenizer == "tokenizer_3" else model_max_length

    def predict(
        self, network: Denoiser, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding, size: Size
    ) -> torch.Tensor:
        return network(
            hidden_states=latents,
            timestep=timesteps,
            encoder_hidden_states=embeddings.tokens,
            pooled_projections=embeddings.pooled,
            return_dict=False,
        )[0]

    def blocks(self, network: Any) -> list[nn.Module]:
        return list(network.transformer_blocks)

    def sides(self, pipeline: Any) -> tuple[int, int | None]:
        """No side has more patches than there are position embeddings."""
        config = pipeline.transformer.config
        unit = self.scale_factor(pipeline) * config.patch_size
        return unit, unit * config.pos_embed_max_size

    def prediction(self, pipeline: Any) -> Prediction:
        return "flow"

    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        pipeline.scheduler.set_timesteps(steps)
        return pipeline.scheduler.sigmas.tolist()

    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        if contract.prediction != "flow":
            raise FolderRefusedError(f"prediction: Stable Diffusion 3 predicts the flow, not {contract.prediction}")
        refuse_other_channels(self, pipeline)
        if contract.max_sequence_length and contract.max_sequence_length > MAX_T5_TOKENS:
            raise FolderRefusedError(f"max_sequence_length: {contract.max_sequence_length} is above {MAX_T5_TOKENS}")
        refuse_other_sides(self, contract.sizes, pipeline)

    def features(self, network: Any) -> tuple[nn.Module, int]:
        return network.norm_out, network.inner_dim

    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        tokens = CLIP_TOKENS + (max_sequence_length or DEFAULT_T5_TOKENS)
        return torch.empty(rows, config.in_channels, config.sample_size, config.sample_size), PromptEmbedding(
            torch.empty(rows, tokens, config.joint_attention_dim), torch.empty(rows, config.pooled_projection_dim)
        )
