"""Load a teacher's diffusers folder, with its text encoders or without."""

import json
from pathlib import Path
from typing import Any

import diffusers

from distill import families
from distill.config import FamilyName


def load(folder: Path, *, text_encoders: bool = True) -> Any:
    """The pipeline in `folder`. Raises ValueError for a folder that is no pipeline of a known family."""
    kind = _kind(folder)
    absent = {} if text_encoders else dict.fromkeys(families.PIPELINES[kind].text_parts)
    return getattr(diffusers, kind).from_pretrained(folder, use_safetensors=True, **absent)


def family(folder: Path) -> FamilyName:
    """The family of the pipeline in `folder`, without loading it. Raises ValueError as `load` does."""
    return families.PIPELINES[_kind(folder)].name


def _kind(folder: Path) -> str:
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"teacher: {folder} is no diffusers pipeline folder (it has no model_index.json)")
    kind = json.loads(index.read_text()).get("_class_name")
    if kind not in families.PIPELINES:
        raise ValueError(f"teacher: {folder} holds a {kind}; known pipelines: {', '.join(families.PIPELINES)}")
    return kind
