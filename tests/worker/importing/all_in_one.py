"""Files with all networks of an SDXL, by the names of its authors."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from worker.testing import tiny_sdxl_pipelines
from worker.testing.tiny_pipelines import WIDTH

LAYERS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""diffusers' name of a layer of a residual block → the authors'."""
FIXED = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def unet(scale: float = 1.0) -> UNet2DConditionModel:
    """A tiny UNet of SDXL's own topology; always the same weights, times `scale`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 16, 16),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=[1, 1, 2],
            attention_head_dim=(1, 2, 2),
            norm_num_groups=4,
            cross_attention_dim=2 * WIDTH,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        )
    with torch.no_grad():
        for weight in network.parameters():
            weight *= scale
    return network.requires_grad_(False).eval()


def pipeline(scale: float = 1.0) -> Any:
    whole = tiny_sdxl_pipelines.build()
    whole.register_modules(unet=unet(scale))
    return whole


def save(state: Mapping[str, torch.Tensor], file: Path) -> Path:
    """Write the UNet's `state` by the authors' names, and something of the other networks."""
    named = {f"model.diffusion_model.{_authors(name)}": tensor.contiguous() for name, tensor in state.items()}
    others = ("first_stage_model.decoder.conv_in.bias", "conditioner.embedders.0.transformer.text_model.x.weight")
    save_file(named | {name: torch.zeros(4) for name in others}, file)
    return file


def _authors(name: str) -> str:
    for fixed, other in FIXED.items():
        if name.startswith(f"{fixed}."):
            return _layer(other + name.removeprefix(fixed))
    match = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name)
    assert match, name
    way, block, kind, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * block + 3}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * block + 2}.2.{rest}"
    place = f"input_blocks.{3 * block + number + 1}" if way == "down" else f"output_blocks.{3 * block + number}"
    return _layer(f"{place}.{0 if kind == 'resnets' else 1}.{rest}")


def _layer(name: str) -> str:
    for layer, other in LAYERS.items():
        if re.fullmatch(r"(middle_block\.\d|(input|output)_blocks\.\d+\.0)\." + layer + r"\.\w+", name):
            return name.replace(f".{layer}.", f".{other}.")
    return name
