"""A LoRA file that is added to the weights of a pipeline for good."""

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from safetensors import safe_open

from worker.errors import FolderRefusedError
from worker.families.base import Family

TEXT_ENCODERS = {
    "text_encoder": ("text_encoder.", "lora_te1_", "lora_te_"),
    "text_encoder_2": ("text_encoder_2.", "lora_te2_"),
    "text_encoder_3": ("text_encoder_3.", "lora_te3_"),
}
"""Component → how the names of weights begin that are added to it; by all other names they are the denoiser's."""


def fuse(pipeline: Any, folder: Path, scale: float) -> None:
    """Add `scale` times the LoRA file in `folder` to the pipeline's weights. Raises FolderRefusedError."""
    try:
        pipeline.load_lora_weights(folder, weight_name=LORA_WEIGHT_NAME_SAFE)
        if not pipeline.get_active_adapters():
            raise ValueError("no layer of the base model takes it")
        pipeline.fuse_lora(lora_scale=scale)
    except (ValueError, RuntimeError, KeyError) as error:
        raise FolderRefusedError(f"{LORA_WEIGHT_NAME_SAFE}: does not fit the base model: {error}") from error
    pipeline.unload_lora_weights()


def loading_dtypes(folder: Path, family: Family, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Return the types in which to load the pipeline that the file in `folder` is added to: float32 for the networks
    that it touches, since it is added before they are rounded to `dtype`."""
    with safe_open(folder / LORA_WEIGHT_NAME_SAFE, framework="pt") as file:
        touched = {_component(name, family) for name in file.keys()}  # noqa: SIM118
    return {"default": dtype} | dict.fromkeys(sorted(touched), torch.float32)


def _component(weight: str, family: Family) -> str:
    found = (name for name, prefixes in TEXT_ENCODERS.items() if weight.startswith(prefixes))
    return next(found, family.denoiser)
