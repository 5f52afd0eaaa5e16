"""Load a teacher's diffusers folder, with its text encoders or without."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch

from distill import families
from distill.config import FamilyName


def load(folder: Path, *, text_encoders: bool = True) -> Any:
    """The pipeline in `folder`. Raises ValueError for a folder that is no pipeline of a known family."""
    name = kind(folder)
    absent = {} if text_encoders else dict.fromkeys(families.PIPELINES[name].text_parts)
    return getattr(diffusers, name).from_pretrained(folder, use_safetensors=True, **absent)


def load_text_encoders(folder: Path) -> Any:
    """The pipeline in `folder` with nothing but what encodes prompts, on the accelerator if there is one."""
    name = kind(folder)
    absent = dict.fromkeys((families.PIPELINES[name].denoiser, "vae"))
    pipeline = getattr(diffusers, name).from_pretrained(folder, use_safetensors=True, **absent)
    return pipeline.to(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else pipeline


def family(folder: Path) -> FamilyName:
    """The family of the pipeline in `folder`, without loading it. Raises ValueError as `load` does."""
    return families.PIPELINES[kind(folder)].name


def kind(folder: Path) -> str:
    """The name of its pipeline's class. Raises ValueError as `load` does."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"teacher: {folder} is no diffusers pipeline folder (it has no model_index.json)")
    name = json.loads(index.read_text()).get("_class_name")
    if name not in families.PIPELINES:
        raise ValueError(f"teacher: {folder} holds a {name}; known pipelines: {', '.join(families.PIPELINES)}")
    return name
