"""Load a teacher's diffusers folder, with its text encoders or without."""

import json
from pathlib import Path

from diffusers import StableDiffusion3Pipeline

FAMILIES = {"StableDiffusion3Pipeline": "sd3"}
"""diffusers pipeline class → model family."""


def load(folder: Path, *, text_encoders: bool = True) -> StableDiffusion3Pipeline:
    """The pipeline in `folder`. Raises ValueError for a folder that is no pipeline of a known family."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"teacher: {folder} is no diffusers pipeline folder (it has no model_index.json)")
    kind = json.loads(index.read_text()).get("_class_name")
    if kind not in FAMILIES:
        raise ValueError(f"teacher: {folder} holds a {kind}; known pipelines: {', '.join(FAMILIES)}")
    absent = {} if text_encoders else {f"{kind}{n}": None for kind in ("text_encoder", "tokenizer") for n in _NUMBERS}
    return StableDiffusion3Pipeline.from_pretrained(folder, use_safetensors=True, **absent)


_NUMBERS = ("", "_2", "_3")
