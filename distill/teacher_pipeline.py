"""Load a teacher's diffusers folder, with its text encoders or without."""

import json
from pathlib import Path
from typing import Any

from distill import families


def load(folder: Path, *, text_encoders: bool = True) -> Any:
    """The pipeline in `folder`. Raises ValueError for a folder that is no pipeline of a known family."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"teacher: {folder} is no diffusers pipeline folder (it has no model_index.json)")
    kind = json.loads(index.read_text()).get("_class_name")
    if kind not in families.PIPELINES:
        raise ValueError(f"teacher: {folder} holds a {kind}; known pipelines: {', '.join(families.PIPELINES)}")
    family = families.StableDiffusionXL if kind == "StableDiffusionXLPipeline" else families.StableDiffusion3
    absent = {} if text_encoders else dict.fromkeys(family.text_parts)
    return families.PIPELINES[kind].from_pretrained(folder, use_safetensors=True, **absent)
