"""Z-Image, Turbo and base: one transformer over image and text tokens that predicts the flow."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from torch import nn
from torch.nn import functional as F

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
)
from worker.families.prompt_embeddings import PromptEmbedding
from worker.families.shared.patches import SIDE, image_positions
from worker.families.shared.rotary import RealRotaryAttention
from worker.sampling.noise_schedule import Prediction
from worker.sampling.schedulers import flow_grid

TOKENS = 512
SHORTER_LENGTHS = (128, 256)
MULTIPLE = 32
"""Captions and images are filled up with learnt vectors to a multiple of so many tokens."""
NATIVE_SIDE = 1024
MEGAPIXEL_LATENTS = 128


class ZImage(Family):
    """Qwen3's last hidden states but one, as many as the prompt has tokens.

    diffusers counts guidance from 0: its scale s is 1 + s here.
    """

    name = "z-image"
    pipelines = ("ZImagePipeline",)
    denoiser = "transformer"
    text_components = ("text_encoder", "tokenizer")
    grid_field = "sigmas"
    before_prompts = "<|im_start|>user\n"  # by Qwen3's template; what stands behind them is cut first
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")

    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        # A list of their own: the pipeline writes into the one that it is given.
        rows, _ = pipeline.encode_prompt(
            list(prompts),
            device=pipeline.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=max_sequence_length or TOKENS,
        )
        return [PromptEmbedding(row, mask=torch.ones(len(row), dtype=torch.bool, device=row.device)) for row in rows]

    def default_sequence_length(self, pipeline: Any) -> int:
        return TOKENS

    def text_lengths(self, max_sequence_length: int | None) -> tuple[int, ...]:
        longest = -(-(max_sequence_length or TOKENS) // MULTIPLE) * MULTIPLE
        return (*(length for length in SHORTER_LENGTHS if length < longest), longest)

    def prepare(self, pipeline: Any) -> None:
        network = pipeline.transformer
        for block in (*network.noise_refiner, *network.context_refiner, *network.layers):
            block.attention.set_processor(RealRotaryAttention())

    def predict(
        self, network: Denoiser, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding, size: Size
    ) -> torch.Tensor:
        time = (1000 - timesteps) / 1000
        if isinstance(network, ZImageTransformer2DModel):
            assert embeddings.mask is not None
            return -_predict(network, latents, time, embeddings.tokens, embeddings.mask)
        # A trainer's role: it can only be called, and the network then takes lists.
        assert embeddings.mask is not None
        captions = [row[mask] for row, mask in zip(embeddings.tokens, embeddings.mask, strict=True)]
        images = network(list(latents.unsqueeze(2)), time, captions, return_dict=False)[0]
        return -torch.stack(images).squeeze(2)

    def blocks(self, network: Any) -> list[nn.Module]:
        return [*network.noise_refiner, *network.context_refiner, *network.layers]

    def sides(self, pipeline: Any) -> tuple[int, int | None]:
        """No side has more patches than the rotary tables have entries."""
        unit = SIDE * self.scale_factor(pipeline)
        return unit, unit * min(pipeline.transformer.config.axes_lens[1:])

    def native_size(self, pipeline: Any) -> Size:
        """One megapixel, as in training."""
        return NATIVE_SIDE, NATIVE_SIDE

    def prediction(self, pipeline: Any) -> Prediction:
        return "flow"

    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        height, width = (side // self.scale_factor(pipeline) // SIDE for side in size)
        return flow_grid(pipeline.scheduler, steps, height * width)

    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        config = pipeline.transformer.config
        refuse_other_prediction(self, contract)
        refuse_float16(self, pipeline)
        refuse_other_told_guidance(contract, False, "z-image")
        refuse_other_channels(self, pipeline)
        if tuple(config.all_patch_size) != (SIDE,) or tuple(config.all_f_patch_size) != (1,):
            raise FolderRefusedError(f"transformer.all_patch_size: {config.all_patch_size}, but Z-Image's is [{SIDE}]")
        if config.siglip_feat_dim is not None:
            raise FolderRefusedError("transformer.siglip_feat_dim: a Z-Image that is given pictures is not served")
        if contract.max_sequence_length and contract.max_sequence_length > TOKENS:
            raise FolderRefusedError(f"max_sequence_length: {contract.max_sequence_length} is above {TOKENS}")
        refuse_other_sides(self, contract.sizes, pipeline)

    def features(self, network: Any) -> tuple[nn.Module, int]:
        """The first of its tokens are the image."""
        return network.layers[-1].ffn_norm2, network.dim

    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        length = max_sequence_length or TOKENS
        tokens, mask = torch.empty(rows, length, config.cap_feat_dim), torch.ones(rows, length, dtype=torch.bool)
        latents = torch.empty(rows, config.in_channels, MEGAPIXEL_LATENTS, MEGAPIXEL_LATENTS)
        return latents, PromptEmbedding(tokens, mask=mask)


def _predict(
    network: Any, latents: torch.Tensor, time: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Do what the network's own forward does to lists, for captions that are padded to one length: [B, C, 2h, 2w].

    `latents` [B, C, 2h, 2w], `time` float32 [B], `tokens` [B, length, width] and `mask` bool [B, length]. Only shapes
    decide about the course, so that it can be captured. A caption of k tokens ends at P, the next multiple of 32. What
    is between is filled with a learnt vector and attended to like any token; what is beyond is masked.
    """
    rows, channels, *sides = latents.shape
    height, width = (side // SIDE for side in sides)
    image, device = height * width, latents.device
    modulation = network.t_embedder(time * network.t_scale).type_as(latents)
    tokens = F.pad(tokens, (0, 0, 0, -tokens.shape[1] % MULTIPLE))
    number = torch.arange(tokens.shape[1], device=device)
    real = mask.sum(1, keepdim=True)
    end = (real + MULTIPLE - 1) // MULTIPLE * MULTIPLE

    captions = network.cap_embedder(tokens)
    captions = torch.where((number < real).unsqueeze(2), captions, network.cap_pad_token.to(captions.dtype))
    within = number < end
    caption_rotary = _rotary(network, (number + 1).expand(rows, -1), torch.zeros_like(number), torch.zeros_like(number))
    for block in network.context_refiner:
        captions = block(captions, within, caption_rotary)

    patches = latents.view(rows, channels, height, SIDE, width, SIDE).permute(0, 2, 4, 3, 5, 1)
    pixels = network.all_x_embedder[f"{SIDE}-1"](patches.reshape(rows, image, SIDE**2 * channels))
    missing = -image % MULTIPLE
    padding = network.x_pad_token.to(pixels.dtype).expand(rows, missing, -1)
    pixels = torch.cat([pixels, padding], 1)
    # The image's first position is that after its own caption; all of its padding has position 0.
    row, column = (F.pad(each, (0, missing)) for each in image_positions(height, width, device))
    is_image = torch.arange(image + missing, device=device) < image
    image_rotary = _rotary(network, (end + 1) * is_image, row, column)
    for block in network.noise_refiner:
        pixels = block(pixels, None, image_rotary, modulation)

    unified = torch.cat([pixels, captions], 1)
    rotary = torch.cat([image_rotary, caption_rotary], 1)
    seen = F.pad(within, (image + missing, 0), value=True)
    for block in network.layers:
        unified = block(unified, seen, rotary, modulation)
    values = network.all_final_layer[f"{SIDE}-1"](unified, c=modulation)[:, :image]
    values = values.reshape(rows, height, width, SIDE, SIDE, channels).permute(0, 5, 1, 3, 2, 4)
    return values.reshape(latents.shape)


def _rotary(network: Any, first: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Return the rotary embedding of positions (`first` [B, n], `row` [n], `column` [n]): float32 [B, n, pairs, 2]."""
    ids = torch.stack(torch.broadcast_tensors(first, row, column), 2)
    return torch.view_as_real(network.rope_embedder(ids.flatten(0, 1))).unflatten(0, first.shape)
