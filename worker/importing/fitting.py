"""Fits tensors to the network of a base model, from shapes alone."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from worker.importing.source import CONFIG, Tensors
from worker.model_folder.lora import compare_layers
from worker.model_folder.pipeline_folder import INDEX, PipelineIndex
from worker.model_folder.refusals import refuse_endless_networks

LISTED = 8


def empty_network(folder: Path, kind: str) -> Any:
    """Return a network of the class `kind` of diffusers, configured as in `folder`, without memory for its weights."""
    with torch.device("meta"):
        return getattr(diffusers, kind).from_config(json.loads((folder / CONFIG).read_bytes()))


def empty_pipeline(folder: Path, index: PipelineIndex) -> Any:
    """Return the pipeline in `folder` without what encodes prompts, and without memory for other weights."""
    family, names = index.family, (index.family.denoiser, "vae")
    refuse_endless_networks(folder, names)
    networks = {name: empty_network(folder / name, index.components[name][1]) for name in names}
    absent = dict.fromkeys([*family.text_components, *family.unused_components])
    return DiffusionPipeline.from_pretrained(folder, local_files_only=True, **family.load_options, **absent, **networks)


def check_tensors(tensors: Tensors, network: Any) -> None:
    """Raise ValueError that lists the tensors of `network` that are missing, extra or of another shape."""
    expected = network.state_dict()
    faults = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "extra": sorted(tensors.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & tensors.keys())
            if tensors[name].shape != expected[name].shape
        ],
    }
    lines = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if lines:
        raise ValueError(f"the checkpoint does not fit the base's {type(network).__name__}: {'; '.join(lines)}")


def check_lora(tensors: Tensors, network: Any, folder: Path, index: PipelineIndex) -> None:
    """Raise ValueError that lists the layers of a LoRA file which `network` does not have, or has in another shape."""
    pipeline = getattr(diffusers, json.loads((folder / INDEX).read_bytes())["_class_name"])
    options = {"unet_config": network.config} if index.family.denoiser == "unet" else {}
    converted = pipeline.lora_state_dict(dict(tensors), **options)
    state = converted[0] if isinstance(converted, tuple) else converted
    faults, fitting = compare_layers(state, network, index.family)
    if faults or not fitting:
        found = f"{len(faults)} layers are not the base's: {_some(faults)}" if faults else "no layer is"
        raise ValueError(f"the LoRA file does not fit the base's {type(network).__name__}: {found}")


def _some(names: list[str]) -> str:
    more = f", … {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
