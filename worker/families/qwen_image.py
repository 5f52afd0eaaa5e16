"""Qwen-Image: a transformer over text and image tokens that predicts the flow."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
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
from worker.families.shared.patches import SIDE, packed, unpacked
from worker.families.shared.rotary import RealRotaryJointAttention
from worker.sampling.guidance import Scale, classifier_free_guidance
from worker.sampling.noise_schedule import Prediction
from worker.sampling.schedulers import flow_grid

TOKENS, MAX_TOKENS = 512, 1024
SHORTER_LENGTH = 128
MEGAPIXEL_LATENTS = 128
OTHER_MODELS = ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")
"""Settings of transformers that edit pictures or make layers."""


class QwenImage(Family):
    """Qwen2.5-VL's last hidden states, as many as the prompt has tokens, behind a text that is the same for all."""

    name = "qwen-image"
    pipelines = ("QwenImagePipeline",)
    denoiser = "transformer"
    text_components = ("text_encoder", "tokenizer")
    grid_field = "sigmas"
    negative_prompt = " "
    vae_memory_format = torch.contiguous_format  # its convolutions are three-dimensional
    lora_targets = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
        "net.0.proj", "net.2",
    )  # fmt: skip

    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        skipped = pipeline.prompt_template_encode_start_idx
        inputs = pipeline.tokenizer(
            [pipeline.prompt_template_encode.format(prompt) for prompt in prompts],
            max_length=skipped + (max_sequence_length or TOKENS),
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).to(pipeline.text_encoder.device)
        # By the encoder without its head: the logits of all tokens would take gigabytes.
        states = pipeline.text_encoder.model(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask
        ).last_hidden_state
        rows = (state[mask][skipped:] for state, mask in zip(states, inputs.attention_mask.bool(), strict=True))
        return [PromptEmbedding(row, mask=torch.ones(len(row), dtype=torch.bool, device=row.device)) for row in rows]

    def default_sequence_length(self, pipeline: Any) -> int:
        return TOKENS

    def text_lengths(self, max_sequence_length: int | None) -> tuple[int, ...]:
        longest = max_sequence_length or TOKENS
        return (SHORTER_LENGTH, longest) if longest > SHORTER_LENGTH else (longest,)

    def prepare(self, pipeline: Any) -> None:
        for block in pipeline.transformer.transformer_blocks:
            block.attn.set_processor(RealRotaryJointAttention())
        _use_frame_convolutions(pipeline.vae.decoder)
        _use_frame_convolutions(pipeline.vae, "post_quant_conv")

    def predict(
        self, network: Denoiser, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding, size: Size
    ) -> torch.Tensor:
        height, width = (side // SIDE for side in latents.shape[-2:])
        inputs: dict[str, Any] = {
            "hidden_states": packed(latents),
            # Cast before it is divided, as in training: in bfloat16 the quotient would be rounded differently.
            "timestep": timesteps.to(latents.dtype) / 1000,
            "encoder_hidden_states": embeddings.tokens,
            "encoder_hidden_states_mask": embeddings.mask,
            "img_shapes": [[(1, height, width)]],
        }
        if isinstance(network, QwenImageTransformer2DModel):
            return unpacked(_predict(network, **inputs), latents)
        return unpacked(network(**inputs, return_dict=False)[0], latents)

    def guide(self, unconditional: torch.Tensor, conditional: torch.Tensor, scale: Scale) -> torch.Tensor:
        """Classifier-free, but each patch keeps the length that its prediction with the prompt has."""
        guided = classifier_free_guidance(unconditional, conditional, scale)
        ratio = _patch_norms(conditional) / _patch_norms(guided)
        return guided * ratio.repeat_interleave(SIDE, 2).repeat_interleave(SIDE, 3)

    def blocks(self, network: Any) -> list[nn.Module]:
        return list(network.transformer_blocks)

    def latent_shape(self, pipeline: Any, size: Size) -> tuple[int, int, int]:
        _, height, width = super().latent_shape(pipeline, size)
        return pipeline.vae.config.z_dim, height, width

    def sides(self, pipeline: Any) -> tuple[int, int | None]:
        return SIDE * self.scale_factor(pipeline), None

    def native_size(self, pipeline: Any) -> Size:
        """One megapixel, diffusers' default."""
        side = pipeline.default_sample_size * self.scale_factor(pipeline)
        return side, side

    def encode_picture(self, vae: Any, pictures: torch.Tensor) -> torch.Tensor:
        """As a video of one frame, without the caches for further ones."""
        moments = vae.quant_conv(vae.encoder(pictures.unsqueeze(2).to(vae.dtype))).squeeze(2).float()
        mean, std = _statistics(vae, moments)
        return (moments[:, : vae.config.z_dim] - mean) / std

    def decode(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        """As a video of one frame. Without the caches for further frames, which are the module's own state."""
        mean, std = _statistics(vae, latents)
        frame = (latents * std + mean).unsqueeze(2).to(vae.dtype)
        return vae.decoder(vae.post_quant_conv(frame)).squeeze(2).float().clamp(-1, 1)

    def prediction(self, pipeline: Any) -> Prediction:
        return "flow"

    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        height, width = (side // self.scale_factor(pipeline) // SIDE for side in size)
        return flow_grid(pipeline.scheduler, steps, height * width)

    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        config = pipeline.transformer.config
        refuse_other_prediction(self, contract)
        refuse_float16(self, pipeline)
        refuse_other_told_guidance(contract, False, "qwen-image")
        for setting in OTHER_MODELS:
            if config.get(setting):
                raise FolderRefusedError(f"transformer.{setting}: true, which Qwen-Image's transformer is not")
        values = SIDE**2 * pipeline.vae.config.z_dim
        if config.in_channels != values:
            raise FolderRefusedError(f"transformer.in_channels: {config.in_channels}, but a patch has {values} values")
        if contract.max_sequence_length and contract.max_sequence_length > MAX_TOKENS:
            raise FolderRefusedError(f"max_sequence_length: {contract.max_sequence_length} is above {MAX_TOKENS}")
        refuse_other_sides(self, contract.sizes, pipeline)

    def features(self, network: Any) -> tuple[nn.Module, int]:
        return network.norm_out, network.inner_dim

    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        length = max_sequence_length or TOKENS
        tokens, mask = torch.empty(rows, length, config.joint_attention_dim), torch.ones(rows, length, dtype=torch.bool)
        latents = torch.empty(rows, config.in_channels // SIDE**2, MEGAPIXEL_LATENTS, MEGAPIXEL_LATENTS)
        return latents, PromptEmbedding(tokens, mask=mask)


def _predict(
    network: Any,
    hidden_states: torch.Tensor,
    timestep: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    encoder_hidden_states_mask: torch.Tensor | None,
    img_shapes: list[list[tuple[int, int, int]]],
) -> torch.Tensor:
    """Do what the network's own forward does, which with a mask copies a number from the host: no graph holds that."""
    image = network.img_in(hidden_states)
    text = network.txt_in(network.txt_norm(encoder_hidden_states))
    time = network.time_text_embed(timestep, image)
    rotary = network.pos_embed(img_shapes, max_txt_seq_len=text.shape[1], device=image.device)
    pairs = tuple(torch.view_as_real(each) for each in rotary)
    for block in network.transformer_blocks:
        text, image = block(
            hidden_states=image,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=encoder_hidden_states_mask,
            temb=time,
            image_rotary_emb=pairs,
        )
    return network.proj_out(network.norm_out(image, time))


class FrameConvolution(nn.Conv2d):
    """A causal convolution over time, of one frame: only the last of its weights in time meets anything but zeros."""

    def __init__(self, causal: QwenImageCausalConv3d) -> None:
        _, *kernel = causal.kernel_size
        padding = causal._padding[2], causal._padding[0]
        super().__init__(causal.in_channels, causal.out_channels, kernel, padding=padding, device="meta")
        self.weight = nn.Parameter(causal.weight[:, :, -1].detach().clone(), requires_grad=False)
        self.bias = causal.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[B, C, 1, h, w] → [B, C′, 1, h′, w′]."""
        return super().forward(input.squeeze(2)).unsqueeze(2)


def _use_frame_convolutions(module: nn.Module, *names: str) -> None:
    """Put frame convolutions in the place of the causal ones below `module`, or of its children `names` alone."""
    for name, child in list(module.named_children()):
        if names and name not in names:
            continue
        if not isinstance(child, QwenImageCausalConv3d):
            _use_frame_convolutions(child)
        elif name != "time_conv":  # between frames: of one it is never called
            setattr(module, name, FrameConvolution(child))


def _statistics(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each channel of the latents: [1, C, 1, 1] each."""
    mean, std = (like.new_tensor(values) for values in (vae.config.latents_mean, vae.config.latents_std))
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def _patch_norms(latents: torch.Tensor) -> torch.Tensor:
    """[B, C, 2h, 2w] → [B, 1, h, w]."""
    return F.pixel_unshuffle(latents, SIDE).norm(dim=1, keepdim=True)
