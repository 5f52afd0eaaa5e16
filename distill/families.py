"""What differs between model families: which network denoises, how it is asked, and its noise schedule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from torch import nn

from distill.config import FamilyName
from worker.sampling.noise_schedule import FLOW, NoiseSchedule

Network = Callable[..., Any]
"""A denoiser, or what asks one."""


@dataclass(frozen=True)
class StableDiffusion3:
    """SD3, SD3.5: a transformer that predicts the flow."""

    name: ClassVar[FamilyName] = "sd3"
    denoiser: ClassVar[str] = "transformer"
    text_parts: ClassVar[tuple[str, ...]] = tuple(
        f"{kind}{n}" for kind in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")
    )

    def schedule(self, pipeline: Any) -> NoiseSchedule:
        return FLOW

    def predict(
        self,
        network: Network,
        state: torch.Tensor,
        timestep: torch.Tensor,
        prompt: torch.Tensor,
        pooled: torch.Tensor,
    ) -> torch.Tensor:
        return network(state, prompt, pooled, timestep, return_dict=False)[0]

    def encode(self, pipeline: Any, prompts: list[str], tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [B, tokens, width] and pooled ones [B, width]; `tokens` is the length of the T5 block."""
        prompt, _, pooled, _ = pipeline.encode_prompt(
            prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=tokens
        )
        return prompt, pooled

    def blocks(self, network: Any) -> Sequence[nn.Module]:
        """The repeated blocks, in which nearly all time is spent."""
        return list(network.transformer_blocks)

    def features(self, network: Any) -> tuple[nn.Module, int]:
        """A layer whose output [B, tokens, width] tells pictures apart, and its width."""
        return network.norm_out, network.inner_dim

    def serving_scheduler(self, pipeline: Any) -> Any:
        """The scheduler that an exported folder carries."""
        return pipeline.scheduler


@dataclass(frozen=True)
class StableDiffusionXL:
    """SDXL: a UNet that predicts ε or v over DDPM's alphas and is told the image's size.

    `pixels` are there for each of a latent's, per side.
    """

    pixels: int = 8
    name: ClassVar[FamilyName] = "sdxl"
    denoiser: ClassVar[str] = "unet"
    text_parts: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

    def schedule(self, pipeline: Any) -> NoiseSchedule:
        """Raises ValueError for a scheduler whose network predicts neither ε nor v."""
        kind = pipeline.scheduler.config.get("prediction_type")
        if kind == "epsilon":
            return NoiseSchedule("epsilon", pipeline.scheduler.alphas_cumprod)
        if kind == "v_prediction":
            return NoiseSchedule("v", pipeline.scheduler.alphas_cumprod)
        raise ValueError(f"teacher: its scheduler's prediction_type is {kind}; known are epsilon and v_prediction")

    def predict(
        self,
        network: Network,
        state: torch.Tensor,
        timestep: torch.Tensor,
        prompt: torch.Tensor,
        pooled: torch.Tensor,
    ) -> torch.Tensor:
        height, width = (self.pixels * side for side in state.shape[-2:])
        # Original size, top left corner of the crop, target size: whole images of the trained size.
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=prompt.dtype, device=state.device)
        conditions = {"text_embeds": pooled, "time_ids": sizes.expand(len(state), -1)}
        return network(state, timestep, prompt, added_cond_kwargs=conditions, return_dict=False)[0]

    def encode(self, pipeline: Any, prompts: list[str], tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`tokens` does not count: both CLIP encoders have one length."""
        prompt, _, pooled, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
        return prompt, pooled

    def blocks(self, network: nn.Module) -> Sequence[nn.Module]:
        return [part for part in network.modules() if type(part).__name__ == "BasicTransformerBlock"]

    def features(self, network: Any) -> tuple[nn.Module, int]:
        """The bottleneck, whose output [B, width, h, w] tells pictures apart (DMD2), and its width."""
        return network.mid_block, network.config.block_out_channels[-1]

    def serving_scheduler(self, pipeline: Any) -> Any:
        """Plain diffusers then samples `num_inference_steps` equal steps as training does."""
        return DDIMScheduler.from_config(
            pipeline.scheduler.config,
            timestep_spacing="trailing",
            steps_offset=0,
            set_alpha_to_one=True,
            clip_sample=False,
        )


Family = StableDiffusion3 | StableDiffusionXL
STABLE_DIFFUSION_3 = StableDiffusion3()
PIPELINES: dict[str, type[Family]] = {
    "StableDiffusion3Pipeline": StableDiffusion3,
    "StableDiffusionXLPipeline": StableDiffusionXL,
}
"""diffusers' pipeline class, as a folder's model_index.json names it → family."""


def of(pipeline: Any) -> Family:
    """The family of a loaded pipeline."""
    if isinstance(pipeline, StableDiffusionXLPipeline):
        return StableDiffusionXL(pipeline.vae_scale_factor)
    return STABLE_DIFFUSION_3
