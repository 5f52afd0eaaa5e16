"""A LoRA file that is added to the weights of a pipeline for good."""

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from safetensors import safe_open

from worker.errors import FolderRefusedError
from worker.families.base import Family

TEXT_ENCODER_PREFIXES = ("text_encoder", "lora_te")


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


def loading_dtypes(folder: Path, family: Family, dtype: torch.dtype) -> Any:
    """Return the types in which to load the pipeline that the file in `folder` is added to: float32 for the networks
    that it touches, since it is added before they are rounded to `dtype`."""
    with safe_open(folder / LORA_WEIGHT_NAME_SAFE, framework="pt") as file:
        touches_text = any(name.startswith(TEXT_ENCODER_PREFIXES) for name in file.keys())  # noqa: SIM118
    return torch.float32 if touches_text else {family.denoiser: torch.float32, "default": dtype}
