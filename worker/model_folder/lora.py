"""A LoRA file that is added to the weights of a pipeline for good."""

import re
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open

from worker.errors import FolderRefusedError
from worker.families.base import Family

LISTED = 3

TEXT_ENCODERS = {
    "text_encoder": ("text_encoder.", "lora_te1_", "lora_te_"),
    "text_encoder_2": ("text_encoder_2.", "lora_te2_"),
    "text_encoder_3": ("text_encoder_3.", "lora_te3_"),
}
"""Component → how the names of weights begin that are added to it; by all other names they are the denoiser's."""

HALF = re.compile(r"(.+)\.lora_([AB])\.weight")
FURTHER = re.compile(r"(.+)\.(lora_B\.bias|lora_magnitude_vector(\.weight)?|alpha)")
"""Names in peft's style: of the two halves of a layer, and of what may stand beside them."""


def fuse(pipeline: Any, family: Family, folder: Path, scale: float) -> None:
    """Add `scale` times the LoRA file in `folder` to the pipeline's weights. Raises FolderRefusedError."""
    try:
        faults, fitting = compare_layers(pipeline, family, folder, weight_name=LORA_WEIGHT_NAME_SAFE)
        if faults:  # which diffusers would leave out, with a warning
            raise ValueError(f"what it has for {len(faults)} of its layers does not fit: {', '.join(faults[:LISTED])}")
        pipeline.load_lora_weights(folder, weight_name=LORA_WEIGHT_NAME_SAFE)
        parts = [getattr(pipeline, name) for name in pipeline._lora_loadable_modules]
        adapted = sum(isinstance(layer, BaseTunerLayer) for part in parts if part for layer in part.modules())
        if not fitting or adapted != fitting:
            raise ValueError(f"{adapted} of its {fitting} layers are taken by the base model")
        # All that may be adapted: by default FLUX's text encoder would be left out.
        pipeline.fuse_lora(components=pipeline._lora_loadable_modules, lora_scale=scale)
    except (ValueError, RuntimeError, KeyError) as error:
        raise FolderRefusedError(f"{LORA_WEIGHT_NAME_SAFE}: does not fit the base model: {error}") from error
    pipeline.unload_lora_weights()


def compare_layers(
    pipeline: Any, family: Family, lora: Path | dict[str, torch.Tensor], **options: Any
) -> tuple[list[str], int]:
    """Return the layers in a `lora` that no part of the pipeline has, or has in another shape, or that diffusers would
    leave out, or of which there is one half alone; and how many fit.

    `lora` and `options` are those of diffusers' `lora_state_dict`, which reads the names of other programs. Raises
    ValueError for names that it does not read.
    """
    layers = dict[str, Any]()
    for part in pipeline._lora_loadable_modules:
        network = getattr(pipeline, part, None)
        layers |= {f"{part}.{name}": layer for name, layer in network.named_modules()} if network else {}
    faults, halves = set(), {"A": set[str](), "B": set[str]()}
    for name, tensor in _peft_names(pipeline, family, lora, options).items():
        match = HALF.fullmatch(name)
        if match is None:
            faults |= set() if FURTHER.fullmatch(name) else {name}
            continue
        halves[match[2]].add(match[1])
        weight, side = getattr(layers.get(match[1]), "weight", None), 1 if match[2] == "A" else 0
        if weight is None or min(weight.ndim, tensor.ndim) < 2 or weight.shape[side] != tensor.shape[side]:
            faults.add(match[1])
    return sorted(faults | (halves["A"] ^ halves["B"])), len((halves["A"] & halves["B"]) - faults)


def _peft_names(
    pipeline: Any, family: Family, lora: Path | dict[str, torch.Tensor], options: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Return the tensors of a LoRA file by the name of component and layer, in peft's style."""
    if family.denoiser == "unet":
        options = options | {"unet_config": getattr(pipeline, family.denoiser).config}
    if isinstance(lora, Path):
        with safe_open(lora / LORA_WEIGHT_NAME_SAFE, framework="pt") as file:
            names = sorted(file.keys())
    else:
        names = sorted(lora)
    scaled = [name for name in names if "dora_scale" in name]
    if scaled:
        raise ValueError(f"a DoRA's scales, such as {scaled[0]}, are not read")
    try:
        converted = pipeline.lora_state_dict(lora, **options)
        state: dict[str, torch.Tensor] = converted[0] if isinstance(converted, tuple) else converted
        named = dict[str, torch.Tensor]()
        for part in dict.fromkeys(name.partition(".")[0] for name in state):
            own = {
                name.removeprefix(f"{part}."): tensor for name, tensor in state.items() if name.startswith(f"{part}.")
            }
            if part in TEXT_ENCODERS and part in pipeline._lora_loadable_modules:
                own = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))
                if not hasattr(getattr(pipeline, part), "text_model"):
                    own = {name.removeprefix("text_model."): tensor for name, tensor in own.items()}
            else:
                own = convert_unet_state_dict_to_peft(own)
            named |= {f"{part}.{name}": tensor for name, tensor in own.items()}
    except Exception as error:  # Each converter has errors of its own for names that it does not know.
        reason = " ".join(str(error).split())
        raise ValueError(
            f"diffusers does not read all names of weights such as {names[0]} ({type(error).__name__}: {reason})"
        ) from error
    return named


def with_component(
    tensors: dict[str, torch.Tensor], network: torch.nn.Module, component: str
) -> dict[str, torch.Tensor]:
    """Return `tensors` with `component` before their names where these are the network's own layers alone."""
    layers = dict(network.named_modules())
    matches = [HALF.fullmatch(name) for name in convert_unet_state_dict_to_peft(tensors)]
    if all(match and match[1] in layers for match in matches):
        return {f"{component}.{name}": tensor for name, tensor in tensors.items()}
    return tensors


def loading_dtypes(folder: Path, family: Family, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Return the types in which to load the pipeline that the file in `folder` is added to: float32 for the networks
    that it touches, since it is added before they are rounded to `dtype`."""
    with safe_open(folder / LORA_WEIGHT_NAME_SAFE, framework="pt") as file:
        touched = {component(name, family) for name in file.keys()}  # noqa: SIM118
    return {"default": dtype} | dict.fromkeys(sorted(touched), torch.float32)


def component(weight: str, family: Family) -> str:
    """Return the component to which the `weight` of a LoRA file is added, by its name."""
    found = (name for name, prefixes in TEXT_ENCODERS.items() if weight.startswith(prefixes))
    return next(found, family.denoiser)
