"""FLUX.2 [klein]: a transformer over text and image tokens that predicts the flow of patched, normalised latents."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

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
from worker.families.shared.patches import SIDE, image_positions
from worker.sampling.noise_schedule import Prediction
from worker.sampling.schedulers import flow_grid

TOKENS = 512
MEGAPIXEL_LATENTS = 64


class Flux2Klein(Family):
    """Qwen3's hidden states after three of its layers, side by side. Their padding is attended to: all prompts have one
    length.

    A latent of sampling is a 2 × 2 patch of the autoencoder's, by its channel, then row, then column, and normalised by
    the statistics of the autoencoder's batch norm. The distilled models take no guidance; base models take
    classifier-free guidance.
    """

    name = "flux2-klein"
    pipelines = ("Flux2KleinPipeline",)
    denoiser = "transformer"
    text_components = ("text_encoder", "tokenizer")
    grid_field = "sigmas"
    before_prompts = "<|im_start|>user\n"  # by Qwen3's template; what stands behind them is cut first
    lora_targets = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
        "linear_in", "linear_out", "to_qkv_mlp_proj", "to_out",
    )  # fmt: skip

    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        # By the encoder without its head: the logits of all tokens would take 156 MB a prompt.
        tokens = pipeline._get_qwen3_prompt_embeds(
            pipeline.text_encoder.model,
            pipeline.tokenizer,
            list(prompts),
            max_sequence_length=max_sequence_length or TOKENS,
        )
        return [PromptEmbedding(row) for row in tokens]

    def default_sequence_length(self, pipeline: Any) -> int:
        return TOKENS

    def predict(
        self, network: Denoiser, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding, size: Size
    ) -> torch.Tensor:
        height, width = latents.shape[-2:]
        rows, columns = image_positions(height, width, latents.device)
        number = torch.arange(embeddings.length, device=latents.device)
        none, no_text = torch.zeros_like(rows), torch.zeros_like(number)
        tokens = network(
            hidden_states=latents.flatten(2).transpose(1, 2),
            # Cast before it is divided, as in training: in bfloat16 the quotient would be rounded differently.
            timestep=timesteps.to(latents.dtype) / 1000,
            guidance=None,
            encoder_hidden_states=embeddings.tokens,
            txt_ids=torch.stack([no_text, no_text, no_text, number], 1),
            img_ids=torch.stack([none, rows, columns, none], 1),
            return_dict=False,
        )[0]
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def blocks(self, network: Any) -> list[nn.Module]:
        return [*network.transformer_blocks, *network.single_transformer_blocks]

    def scale_factor(self, pipeline: Any) -> int:
        return SIDE * pipeline.vae_scale_factor

    def native_size(self, pipeline: Any) -> Size:
        """One megapixel, as in training."""
        side = pipeline.default_sample_size * pipeline.vae_scale_factor
        return side, side

    def encode_picture(self, vae: Any, pictures: torch.Tensor) -> torch.Tensor:
        encoded = vae.encode(pictures.to(vae.dtype), return_dict=False)[0].mode().float()
        mean, std = _statistics(vae)
        return (F.pixel_unshuffle(encoded, SIDE) - mean) / std

    def decode(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        mean, std = _statistics(vae)
        scaled = latents * std + mean
        return vae.decode(F.pixel_shuffle(scaled, SIDE).to(vae.dtype), return_dict=False)[0].float()

    def prediction(self, pipeline: Any) -> Prediction:
        return "flow"

    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        """The levels depend on the numbers of image tokens and of steps, by a rule of the family's own."""
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        _, height, width = self.latent_shape(pipeline, size)
        return flow_grid(pipeline.scheduler, steps, mu=compute_empirical_mu(height * width, steps))

    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        config = pipeline.transformer.config
        refuse_other_prediction(self, contract)
        refuse_float16(self, pipeline)
        refuse_other_told_guidance(contract, False, "flux2-klein")
        if config.guidance_embeds:
            raise FolderRefusedError("transformer.guidance_embeds: true, but klein is told no guidance scale")
        if pipeline.config.is_distilled and contract.guidance_scale > 1:
            raise FolderRefusedError(f"guidance_scale: {contract.guidance_scale}, but a distilled klein takes none")
        values = SIDE**2 * pipeline.vae.config.latent_channels
        if config.in_channels != values:
            raise FolderRefusedError(f"transformer.in_channels: {config.in_channels}, but a patch has {values} values")
        if contract.max_sequence_length and contract.max_sequence_length > TOKENS:
            raise FolderRefusedError(f"max_sequence_length: {contract.max_sequence_length} is above {TOKENS}")
        refuse_other_sides(self, contract.sizes, pipeline)

    def features(self, network: Any) -> tuple[nn.Module, int]:
        return network.norm_out, network.inner_dim

    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        tokens = torch.empty(rows, max_sequence_length or TOKENS, config.joint_attention_dim)
        return torch.empty(rows, config.in_channels, MEGAPIXEL_LATENTS, MEGAPIXEL_LATENTS), PromptEmbedding(tokens)


def _statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each channel of the patched latents: float32 [1, C, 1, 1] each."""
    std = (vae.bn.running_var.float() + vae.config.batch_norm_eps).sqrt()
    return vae.bn.running_mean.float().view(1, -1, 1, 1), std.view(1, -1, 1, 1)
