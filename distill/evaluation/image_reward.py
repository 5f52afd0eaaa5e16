"""ImageReward (arXiv 2304.05977): a BLIP that reads prompt and picture together, and a small head that grades them."""

import json
import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    BertTokenizerFast,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPImageProcessorPil,
)

from distill.evaluation.feature_spaces import BATCH, frozen
from distill.evaluation.preprocessing import Preprocessing

TOKENS = 35
HEAD_WIDTH = 64
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Mean and standard deviation of the published network's raw grades."""

PIXELS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)
"""The published file's names of the picture half → transformers'; those of the text half are the same in both."""


def image_reward(folder: Path) -> Callable[[Sequence[str], torch.Tensor], torch.Tensor]:
    """The judge in `folder`: `ImageReward.pt` (or .safetensors) and `med_config.json` as published, and the files of
    the tokenizer bert-base-uncased. Raises ValueError that names what is missing or does not fit."""
    network = frozen(ImageReward.load(folder))
    tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    preprocessing = square_pixels(network.vision.config.image_size)

    @torch.no_grad()
    def score(prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        repeated = [prompt for prompt in prompts for _ in range(images.shape[1])]
        read = tokenizer(repeated, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
        rows = zip(
            *(part.split(BATCH) for part in (read.input_ids, read.attention_mask, images.flatten(0, 1))), strict=True
        )
        device = next(network.parameters()).device
        parts = [
            network(ids.to(device), mask.to(device), preprocessing(pictures.to(device))) for ids, mask, pictures in rows
        ]
        return torch.cat(parts).cpu().unflatten(0, images.shape[:2])

    return score


def square_pixels(side: int) -> Preprocessing:
    """Resize the shorter edge to `side` pixels and crop the middle."""
    mean, std = PIXELS
    return Preprocessing(
        CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side, image_mean=mean, image_std=std)
    )


class ImageReward(nn.Module):
    """int64 [B, tokens], its mask, and pixels float32 [B, 3, H, W] → grades [B]."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        super().__init__()
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        widths = (text.hidden_size, 1024, 128, 64, 16, 1)
        dropouts = (0.2, 0.2, 0.1)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Linear(before, after), *(nn.Dropout(p) for p in dropouts[index : index + 1])]
        self.head = nn.Sequential(*layers)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(ids, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state[:, 0]
        return (self.head(read).squeeze(-1) - MEAN) / STD

    @classmethod
    def load(cls, folder: Path) -> "ImageReward":
        """Load the networks in `folder`; their sizes are those of the weights. Raises ValueError for other files."""
        state = {name: value for name, value in _state(folder).items() if not name.startswith(UNUSED)}
        if not (folder / "med_config.json").is_file():
            raise ValueError(f"--scores imagereward: {folder} holds no med_config.json")
        network = cls(*_configs(state, json.loads((folder / "med_config.json").read_text())))
        try:
            network.load_state_dict({_renamed(name): value.float() for name, value in state.items()})
        except RuntimeError as error:
            raise ValueError(f"--scores imagereward: {folder} does not hold an ImageReward: {error}") from error
        return network


def _state(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / "ImageReward.safetensors").is_file():
        return load_file(folder / "ImageReward.safetensors")
    if (folder / "ImageReward.pt").is_file():
        return torch.load(folder / "ImageReward.pt", map_location="cpu", weights_only=True)
    raise ValueError(f"--scores imagereward: {folder} holds neither ImageReward.pt nor ImageReward.safetensors")


def _configs(
    state: dict[str, torch.Tensor], text: dict[str, float | int | str]
) -> tuple[BlipVisionConfig, BlipTextConfig]:
    try:
        patch, places = (
            state[f"blip.visual_encoder.{name}"].shape for name in ("patch_embed.proj.weight", "pos_embed")
        )
        hidden = state["blip.visual_encoder.blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"--scores imagereward: the file has no {error}, so it is not an ImageReward") from error
    width, side = patch[0], math.isqrt(places[1] - 1)
    depth = 1 + max(
        int(found[1]) for name in state if (found := re.match(r"blip\.visual_encoder\.blocks\.(\d+)\.", name))
    )
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=depth,
        num_attention_heads=width // HEAD_WIDTH,
        image_size=side * patch[2],
        patch_size=patch[2],
        layer_norm_eps=1e-6,
    )
    kept = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
        "max_position_embeddings", "layer_norm_eps", "pad_token_id",
    )  # fmt: skip
    sizes = {name: text[name] for name in kept if name in text}
    return vision, BlipTextConfig(**sizes, encoder_hidden_size=width, is_decoder=True)


def _renamed(name: str) -> str:
    if name.startswith("mlp.layers."):
        return "head." + name.removeprefix("mlp.layers.")
    if name.startswith("blip.text_encoder."):
        return "text." + name.removeprefix("blip.text_encoder.")
    inner = name.removeprefix("blip.visual_encoder.")
    for pattern, new in VISION_NAMES:
        inner = re.sub(pattern, new, inner)
    return "vision." + inner
