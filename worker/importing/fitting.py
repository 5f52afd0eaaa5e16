"""Fits tensors to the network of a base model, from shapes alone."""

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline

from worker.importing.base import Base
from worker.importing.source import CONFIG, Tensors
from worker.model_folder.json_files import read_object
from worker.model_folder.lora import compare_layers, component
from worker.model_folder.pipeline_folder import PipelineIndex
from worker.model_folder.refusals import refuse_endless_networks

LISTED = 8


def empty_network(folder: Path, kind: str) -> Any:
    """Return a network of the class `kind` of diffusers, configured as in `folder`, without memory for its weights."""
    with torch.device("meta"):
        return getattr(diffusers, kind).from_config(read_object(folder / CONFIG))


def empty_pipeline(base: Base, index: PipelineIndex) -> Any:
    """Return the pipeline of `base` without what encodes prompts, and without memory for other weights."""
    family, names = index.family, (index.family.denoiser, "vae")
    for name in names:
        refuse_endless_networks(base.configured(name).parent, [name])
    networks = {name: empty_network(base.configured(name), index.components[name][1]) for name in names}
    given = dict.fromkeys([*family.text_components, *family.unused_components]) | networks
    return DiffusionPipeline.from_pretrained(base.folder, local_files_only=True, **family.load_options, **given)


def converted(file: str, tensors: Tensors, kind: str, configured: Path) -> Any:
    """Return the network of the class `kind` of diffusers, configured as in the folder `configured`, out of the tensors
    of a `file` that have the names of the model's own authors. Raises ValueError."""
    dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
    try:
        # Always by a folder: without one, diffusers would fetch the configuration from the hub.
        network = getattr(diffusers, kind).from_single_file(
            dict(tensors), config=str(configured), local_files_only=True, dtype=dtype
        )
    except Exception as error:  # Each converter has errors of its own for names that it does not know.
        raise ValueError(f"{file} does not fit the base's {kind}: {type(error).__name__}: {error}") from error
    if any(parameter.is_meta for parameter in network.parameters()):
        raise ValueError(f"{file} does not hold all tensors of the base's {kind}")
    return network


def refuse_eight_bits(file: str, tensors: Tensors) -> None:
    """Raise ValueError for weights of eight bits, whose scales diffusers does not read."""
    small = next((name for name, tensor in tensors.items() if tensor.ndim and tensor.itemsize == 1), None)
    if small:
        raise ValueError(f"{file} holds weights of 8 bits, such as {small}: import the file with those of 16 bits")


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


def check_lora(file: str, tensors: Tensors, pipeline: Any, base: Base, index: PipelineIndex) -> None:
    """Raise ValueError that lists the layers of a LoRA `file` which the pipeline of `base` does not have, or has in
    another shape, or that would not be added."""
    touched = {component(name, index.family) for name in tensors} & index.components.keys()
    for name in touched - {index.family.denoiser}:
        pipeline.register_modules(**{name: _empty_text_encoder(base.configured(name), index.components[name][1])})
    try:
        faults, fitting = compare_layers(pipeline, index.family, dict(tensors))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if faults or not fitting:
        found = f"{len(faults)} layers are not the base's: {_some(faults)}" if faults else "no layer is"
        network = type(getattr(pipeline, index.family.denoiser)).__name__
        raise ValueError(f"{file} does not fit the base's {network}: {found}")


def _empty_text_encoder(folder: Path, kind: str) -> Any:
    refuse_endless_networks(folder.parent, [folder.name])
    encoder = getattr(transformers, kind)
    with torch.device("meta"):
        return encoder(encoder.config_class.from_pretrained(folder, local_files_only=True))


def _some(names: list[str]) -> str:
    more = f", … {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
