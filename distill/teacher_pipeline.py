"""Load a teacher's diffusers folder, with its text encoders or without."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import safe_open

from worker.families import registry
from worker.families.base import Family
from worker.model_folder.json_files import read_object
from worker.model_folder.networks import read_networks
from worker.model_folder.pipeline_folder import read_index


def load(folder: Path, *, text_encoders: bool = True) -> Any:
    """Load the pipeline in `folder`, text encoders in the type in which they are stored, all else in float32.

    Raises ValueError for a folder that is no pipeline of a known family.
    """
    names = family(folder).text_components
    if not text_encoders:
        return _load(folder, names)
    stored = {name: dtype for name in names if (dtype := _stored_dtype(folder / name)) is not None}
    return _load(folder, [], stored | {"default": torch.float32})


def load_text_encoders(folder: Path) -> Any:
    """Load only what encodes prompts of the pipeline in `folder`: onto this process's accelerator in bfloat16, as they
    are served there, or in float32 on a CPU."""
    absent = [family(folder).denoiser, "vae"]
    if not torch.accelerator.is_available():
        return _load(folder, absent)
    # Read as bfloat16: in float32 a T5 of five billion weights would take 22 GB.
    torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", "0")))
    return _load(folder, absent, torch.bfloat16).to(torch.accelerator.current_accelerator())


def family(folder: Path) -> Family:
    """Return the family of the pipeline in `folder`, without loading it. Raises ValueError as `load` does."""
    return registry.pipelines()[_class_name(folder)]


def _load(folder: Path, absent: Sequence[str], dtype: Any = torch.float32) -> Any:
    pipeline, index = getattr(diffusers, _class_name(folder)), read_index(folder)
    networks = read_networks(folder, index, dtype, skip=absent)
    return pipeline.from_pretrained(folder, use_safetensors=True, **networks, **dict.fromkeys(absent))


def _stored_dtype(component: Path) -> torch.dtype | None:
    """The type of the first weight in a component's folder; None for one without weights, such as a tokenizer."""
    for file in sorted(component.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                return weights.get_tensor(name).dtype
    return None


def _class_name(folder: Path) -> str:
    index, known = folder / "model_index.json", registry.pipelines()
    if not index.is_file():
        raise ValueError(f"teacher: {folder} is no diffusers pipeline folder (it has no model_index.json)")
    name = read_object(index).get("_class_name")
    if name not in known:
        raise ValueError(f"teacher: {folder} holds a {name}; known pipelines: {', '.join(known)}")
    return name
