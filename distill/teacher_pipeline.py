"""Load a teacher's diffusers folder, with its text encoders or without."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from worker.families import registry
from worker.families.base import Family


def load(folder: Path, *, text_encoders: bool = True) -> Any:
    """Load the pipeline in `folder`. Raises ValueError for a folder that is no pipeline of a known family."""
    return _load(folder, [] if text_encoders else family(folder).text_components)


def load_text_encoders(folder: Path) -> Any:
    """Load only what encodes prompts of the pipeline in `folder`, onto the accelerator if there is one."""
    pipeline = _load(folder, [family(folder).denoiser, "vae"])
    return pipeline.to(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else pipeline


def family(folder: Path) -> Family:
    """Return the family of the pipeline in `folder`, without loading it. Raises ValueError as `load` does."""
    return registry.pipelines()[_class_name(folder)]


def _load(folder: Path, absent: Sequence[str]) -> Any:
    pipeline = getattr(diffusers, _class_name(folder))
    return pipeline.from_pretrained(folder, use_safetensors=True, **dict.fromkeys(absent))


def _class_name(folder: Path) -> str:
    index, known = folder / "model_index.json", registry.pipelines()
    if not index.is_file():
        raise ValueError(f"teacher: {folder} is no diffusers pipeline folder (it has no model_index.json)")
    name = json.loads(index.read_text()).get("_class_name")
    if name not in known:
        raise ValueError(f"teacher: {folder} holds a {name}; known pipelines: {', '.join(known)}")
    return name
