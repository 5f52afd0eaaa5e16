"""Load a diffusers pipeline folder, or a LoRA file or components on one, with its sampling contract."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from pydantic import ValidationError

from jobs.models import model_name
from jobs.sampling_contract import FILE_NAME, SamplingContract
from jobs.structured_logging import progress
from worker.device.bfloat16 import has_native_bfloat16
from worker.errors import FolderRefusedError
from worker.families import registry
from worker.families.base import Size
from worker.families.network import Network
from worker.model_folder.contract import check_contract, own_contract, resized
from worker.model_folder.hub import fetch
from worker.model_folder.lora import fuse, loading_dtypes
from worker.model_folder.networks import read_networks
from worker.model_folder.pipeline_folder import INDEX, PipelineIndex, names_in, read_index
from worker.model_folder.placing import Quantize, TextEncoders, place
from worker.model_folder.refusals import refuse_endless_files
from worker.model_folder.source import check_source
from worker.model_folder.weights_hash import model_sha256, weights_sha256
from worker.sampling.step_table import StepTable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """Everything the engine needs: networks on their device, and the grid they are sampled on.

    `table` is the native size's; `size_tables` holds those of sizes with a grid of their own.
    """

    name: str
    sha256: str
    contract: SamplingContract
    table: StepTable
    network: Network
    size_tables: Mapping[Size, StepTable] = field(default_factory=dict)


def load(
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    steps: int = 4,
    guidance_scale: float = 1.0,
    sizes: Sequence[Size] = (),
    text_encoders: TextEncoders = "device",
    quantize: Quantize | None = None,
) -> LoadedModel:
    """Load a pipeline folder, a LoRA folder or a hub id, from safetensors only.

    A folder without model_index.json holds a LoRA file, or components in the place of others, and a sampling.json whose
    `base` says of what. `steps` and
    `guidance_scale` count only for a model without sampling.json, which is served on its own scheduler's grid.
    `sizes` (height, width) are served instead of the model's own; the first is the default.
    `device` "auto" means the first CUDA device if there is one, `dtype` "auto" bfloat16 where the device computes in
    it: on a GPU since Ampere, and on a CPU with AVX512-BF16 or AMX; else float32. `text_encoders` and `quantize` save
    the device's memory; see worker.model_folder.placing.
    Raises FolderRefusedError, and StartFailedError for a device that lacks a number format.
    """
    chosen_device, chosen_dtype = device_and_dtype(device, dtype)
    folder = _folder(model)
    refuse_endless_files(folder)
    contract = _contract(folder)
    overlay = None if (folder / INDEX).is_file() else folder
    base = _base(overlay, contract) if overlay else folder
    refuse_endless_files(base)
    index = read_index(base)
    family = index.family
    if contract and contract.family != family.name:
        raise FolderRefusedError(f"family: sampling.json says {contract.family}, but the pipeline is {family.name}")
    index.refuse_pickles(names_in(base, list(index.components)))
    with progress(f"hashing the weights of {model}"):
        sha256 = weights_sha256(base)
    if contract and contract.base_sha256 not in (None, sha256):
        raise FolderRefusedError(f"base_sha256: {contract.base_sha256} is promised, but the weights hash to {sha256}")
    lora_scale = contract.lora_scale if contract else 1.0
    with progress(f"reading the weights of {model}"):
        pipeline = _pipeline(base, index, chosen_dtype, chosen_device, overlay=overlay, lora_scale=lora_scale)
        place(pipeline, family, chosen_device, text_encoders, quantize)
    if contract is None:
        log.warning("%s has no %s: serving it on its own scheduler at %d steps", model, FILE_NAME, steps)
        contract = own_contract(pipeline, steps, guidance_scale, sizes)
    elif sizes:
        contract = resized(contract, sizes, pipeline)
    folders = (base, overlay) if overlay else (base,)
    return served(model_name(model), model_sha256(contract, *folders), contract, pipeline)


def served(name: str, sha256: str, contract: SamplingContract, pipeline: Any) -> LoadedModel:
    """Combine a loaded pipeline with its contract. Raises FolderRefusedError when they do not fit each other."""
    tables = check_contract(contract, pipeline)
    table = tables[contract.sizes[0]]
    network = Network(
        registry.of(pipeline), pipeline, contract.max_sequence_length, contract.told_guidance, contract.negative_prompt
    )
    own = {size: each for size, each in tables.items() if each is not table}
    return LoadedModel(name, sha256, contract, table, network, own)


def device_and_dtype(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """Resolve "auto" for this machine. Raises FolderRefusedError for a device or dtype that it does not have."""
    try:
        chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise FolderRefusedError(f"device: {device} is not a torch device") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise FolderRefusedError(f"device: {device} was asked for, and torch sees no CUDA device")
    if dtype == "auto":
        return chosen, torch.bfloat16 if has_native_bfloat16(chosen) else torch.float32
    if chosen.type == "cpu" and dtype == "float16":
        raise FolderRefusedError("dtype: float16 is not served on a CPU; use float32 or bfloat16")
    return chosen, getattr(torch, dtype)


def _folder(model: str) -> Path:
    check_source(model)
    return Path(model) if Path(model).is_dir() else fetch(model)


def _base(overlay: Path, contract: SamplingContract | None) -> Path:
    """Return the folder of the pipeline that the files in `overlay` are made for, all of which must be there."""
    lora = (overlay / LORA_WEIGHT_NAME_SAFE).is_file()
    if contract is None or contract.base is None:
        if lora:
            raise FolderRefusedError(f"base: {overlay} holds a LoRA file, but no {FILE_NAME} that names its base model")
        raise FolderRefusedError(f"{INDEX}: missing in {overlay}, so it is not a diffusers pipeline")
    for part in [LORA_WEIGHT_NAME_SAFE] if contract.parts is None else contract.parts:
        if not (overlay / part).exists():
            raise FolderRefusedError(f"{INDEX}: missing in {overlay}, and so is {part} for {contract.base}")
    beside = overlay / contract.base
    return beside if beside.is_dir() else _folder(contract.base)


def _contract(folder: Path) -> SamplingContract | None:
    try:
        return SamplingContract.load(folder)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, part['loc'])) or FILE_NAME}: {part['msg']}" for part in error.errors())
        raise FolderRefusedError("; ".join(faults)) from error


def _pipeline(
    folder: Path,
    index: PipelineIndex,
    dtype: torch.dtype,
    device: torch.device,
    overlay: Path | None,
    lora_scale: float,
) -> Any:
    lora = overlay if overlay and (overlay / LORA_WEIGHT_NAME_SAFE).is_file() else None
    loaded = loading_dtypes(lora, index.family, dtype) if lora else dtype
    lacking = [name for name in index.family.optional_components if name not in index.components]
    options = {"use_safetensors": True, "local_files_only": True}
    options |= index.family.load_options | dict.fromkeys([*index.family.unused_components, *lacking])
    shapes_only = device.type == "meta" and not lora  # which is added to values
    changed = read_networks(overlay, index, loaded, shapes_only=shapes_only) if overlay else {}
    networks = read_networks(folder, index, loaded, skip=changed, shapes_only=shapes_only) | changed
    try:
        pipeline = DiffusionPipeline.from_pretrained(folder, **networks, **options)
    except (OSError, ValueError) as error:
        raise FolderRefusedError(f"model: {folder} does not load: {error}") from error
    if lora:
        fuse(pipeline, index.family, lora, lora_scale)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
            if lora:
                part.to(dtype)  # before it is placed: on the device both copies would need room
    if dtype == torch.float16 and pipeline.vae.config.get("force_upcast"):
        pipeline.vae.float()  # SDXL's own overflows in float16
    return pipeline
