"""Transformers by the names of their authors, as their single files have them."""

import re
from collections.abc import Mapping

import torch

Tensors = dict[str, torch.Tensor]


def _joined(state: Mapping[str, torch.Tensor], names: tuple[str, str, str], other: str) -> Tensors:
    """`state` with the layers called by `names`, in one block each, joined to one called `other`."""
    joined = dict(state)
    for name in state:
        ending = next((ending for ending in (".weight", ".bias") if name.endswith(names[0] + ending)), None)
        if ending:
            block = name.removesuffix(names[0] + ending)
            joined[block + other + ending] = torch.cat([joined.pop(block + each + ending) for each in names])
    return joined


def _renamed(state: Tensors, names: Mapping[str, str]) -> Tensors:
    found = {}
    for name, tensor in state.items():
        for pattern, other in names.items():
            name = re.sub(pattern, other, name)
        found[name] = tensor.contiguous()
    return found


def z_image(state: Mapping[str, torch.Tensor]) -> Tensors:
    state = _joined(state, ("attention.to_q", "attention.to_k", "attention.to_v"), "attention.qkv")
    return _renamed(
        state,
        {
            r"all_final_layer\.2-1\.": "final_layer.",
            r"all_x_embedder\.2-1\.": "x_embedder.",
            r"\.attention\.to_out\.0\.": ".attention.out.",
            r"\.attention\.norm_([kq])\.": r".attention.\1_norm.",
        },
    )


def stable_diffusion_3(state: Mapping[str, torch.Tensor]) -> Tensors:
    """With the beginning of names by which a file with all networks is known."""
    last = max(int(name.split(".")[1]) for name in state if name.startswith("transformer_blocks."))
    state = _joined(state, ("attn.to_q", "attn.to_k", "attn.to_v"), "x_block.attn.qkv")
    state = _joined(state, ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), "context_block.attn.qkv")
    for name in [name for name in state if re.match(rf"norm_out|transformer_blocks\.{last}\.norm1_context", name)]:
        scale, shift = state[name].chunk(2)
        state[name] = torch.cat([shift, scale])
    return _renamed(
        state,
        {
            r"^pos_embed\.proj": "x_embedder.proj",
            r"^pos_embed\.pos_embed": "pos_embed",
            r"^time_text_embed\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
            r"^time_text_embed\.timestep_embedder\.linear_2": "t_embedder.mlp.2",
            r"^time_text_embed\.text_embedder\.linear_1": "y_embedder.mlp.0",
            r"^time_text_embed\.text_embedder\.linear_2": "y_embedder.mlp.2",
            r"^proj_out": "final_layer.linear",
            r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
            r"^transformer_blocks": "joint_blocks",
            r"\.norm1\.linear": ".x_block.adaLN_modulation.1",
            r"\.norm1_context\.linear": ".context_block.adaLN_modulation.1",
            r"\.attn\.to_out\.0": ".x_block.attn.proj",
            r"\.attn\.to_add_out": ".context_block.attn.proj",
            r"\.attn\.norm_([qk])\.": r".x_block.attn.ln_\1.",
            r"\.attn\.norm_added_([qk])\.": r".context_block.attn.ln_\1.",
            r"\.ff\.net\.0\.proj": ".x_block.mlp.fc1",
            r"\.ff\.net\.2": ".x_block.mlp.fc2",
            r"\.ff_context\.net\.0\.proj": ".context_block.mlp.fc1",
            r"\.ff_context\.net\.2": ".context_block.mlp.fc2",
            r"^": "model.diffusion_model.",
        },
    )
