"""A LoRA file that is added to the weights of a pipeline for good."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from safetensors import safe_open

from worker.errors import FolderRefusedError
from worker.families.base import Family

LISTED = 3

TEXT_ENCODERS = {
    "text_encoder": ("text_encoder.", "lora_te1_", "lora_te_"),
    "text_encoder_2": ("text_encoder_2.", "lora_te2_"),
    "text_encoder_3": ("text_encoder_3.", "lora_te3_"),
}
"""Component → how the names of weights begin that are added to it; by all other names they are the denoiser's."""

DOWN = re.compile(r"(.+)\.(lora_A|lora\.down|lora_down)\.weight")
UP = re.compile(r"(.+)\.(lora_B|lora\.up|lora_up)\.weight")


def fuse(pipeline: Any, family: Family, folder: Path, scale: float) -> None:
    """Add `scale` times the LoRA file in `folder` to the pipeline's weights. Raises FolderRefusedError."""
    try:
        faults, _ = compare_layers(pipeline, family, folder, weight_name=LORA_WEIGHT_NAME_SAFE)
        if faults:  # which diffusers would leave out, with a warning
            raise ValueError(f"what it has for {len(faults)} of its layers does not fit: {', '.join(faults[:LISTED])}")
        pipeline.load_lora_weights(folder, weight_name=LORA_WEIGHT_NAME_SAFE)
        if not pipeline.get_active_adapters():
            raise ValueError("no layer of the base model takes it")
        pipeline.fuse_lora(lora_scale=scale)
    except (ValueError, RuntimeError, KeyError) as error:
        raise FolderRefusedError(f"{LORA_WEIGHT_NAME_SAFE}: does not fit the base model: {error}") from error
    pipeline.unload_lora_weights()


def compare_layers(
    pipeline: Any, family: Family, lora: Path | dict[str, torch.Tensor], **options: Any
) -> tuple[list[str], int]:
    """Return the layers in a `lora` that the pipeline's denoiser does not have, or has in another shape, or of which
    there is one half alone; and how many fit.

    `lora` and `options` are those of diffusers' `lora_state_dict`, which reads the names of other programs.
    """
    network = getattr(pipeline, family.denoiser)
    if family.denoiser == "unet":
        options["unet_config"] = network.config
    converted = pipeline.lora_state_dict(lora, **options)
    state: Mapping[str, torch.Tensor] = converted[0] if isinstance(converted, tuple) else converted
    layers, prefix = dict(network.named_modules()), f"{family.denoiser}."
    faults, halves = set(), {1: set[str](), 0: set[str]()}
    for name, tensor in state.items():
        for pattern, side in ((DOWN, 1), (UP, 0)):
            match = pattern.fullmatch(name)
            if match is None or not name.startswith(prefix):
                continue
            weight = getattr(layers.get(match[1].removeprefix(prefix)), "weight", None)
            halves[side].add(match[1])
            if weight is None or min(weight.ndim, tensor.ndim) < 2 or weight.shape[side] != tensor.shape[side]:
                faults.add(match[1])
    return sorted(faults | (halves[0] ^ halves[1])), len((halves[0] & halves[1]) - faults)


def loading_dtypes(folder: Path, family: Family, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Return the types in which to load the pipeline that the file in `folder` is added to: float32 for the networks
    that it touches, since it is added before they are rounded to `dtype`."""
    with safe_open(folder / LORA_WEIGHT_NAME_SAFE, framework="pt") as file:
        touched = {_component(name, family) for name in file.keys()}  # noqa: SIM118
    return {"default": dtype} | dict.fromkeys(sorted(touched), torch.float32)


def _component(weight: str, family: Family) -> str:
    found = (name for name, prefixes in TEXT_ENCODERS.items() if weight.startswith(prefixes))
    return next(found, family.denoiser)
