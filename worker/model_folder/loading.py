"""Load a diffusers pipeline folder, or a LoRA file on one, with its sampling contract."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from pydantic import ValidationError

from jobs.models import model_name
from jobs.sampling_contract import FILE_NAME, SamplingContract
from worker.device.bfloat16 import has_native_bfloat16
from worker.errors import FolderRefusedError
from worker.families import registry
from worker.families.base import Family
from worker.families.network import Network
from worker.model_folder.contract import check_contract, own_contract
from worker.model_folder.refusals import refuse_endless_files, refuse_endless_networks, refuse_pickles
from worker.model_folder.source import check_source
from worker.model_folder.weights_hash import model_sha256, weights_sha256
from worker.sampling.step_table import StepTable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """Everything the engine needs: networks on their device, and the grid they are sampled on."""

    name: str
    sha256: str
    contract: SamplingContract
    table: StepTable
    network: Network


def load(
    model: str, device: str = "auto", dtype: str = "auto", steps: int = 4, guidance_scale: float = 1.0
) -> LoadedModel:
    """Load a pipeline folder, a LoRA folder or a hub id, from safetensors only.

    A LoRA folder holds the LoRA file and a sampling.json whose `base` says what it is fused into. `steps` and
    `guidance_scale` count only for a model without sampling.json, which is served on its own scheduler's grid.
    `device` "auto" means the first CUDA device if there is one, `dtype` "auto" bfloat16 where the device computes in
    it: on CUDA, and on a CPU with AVX512-BF16 or AMX; else float32.
    Raises FolderRefusedError.
    """
    place = device_and_dtype(device, dtype)
    folder = _folder(model)
    refuse_endless_files(folder)
    contract = _contract(folder)
    lora = _is_lora(folder)
    base = _base(folder, contract) if lora else folder
    refuse_endless_files(base)
    family = _family(base)
    if contract and contract.family != family.name:
        raise FolderRefusedError(f"family: sampling.json says {contract.family}, but the pipeline is {family.name}")
    refuse_pickles(base)
    refuse_endless_networks(base)
    sha256 = weights_sha256(base)
    if contract and contract.base_sha256 not in (None, sha256):
        raise FolderRefusedError(f"base_sha256: {contract.base_sha256} is promised, but the weights hash to {sha256}")
    pipeline = _pipeline(base, *place, lora=folder if lora else None)
    if contract is None:
        log.warning("%s has no %s: serving it on its own scheduler at %d steps", model, FILE_NAME, steps)
        contract = own_contract(pipeline, steps, guidance_scale)
    folders = (base, folder) if lora else (base,)
    return served(model_name(model), model_sha256(contract, *folders), contract, pipeline)


def served(name: str, sha256: str, contract: SamplingContract, pipeline: Any) -> LoadedModel:
    """Combine a loaded pipeline with its contract. Raises FolderRefusedError when they do not fit each other."""
    table = check_contract(contract, pipeline)
    network = Network(registry.of(pipeline), pipeline, contract.max_sequence_length)
    return LoadedModel(name, sha256, contract, table, network)


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
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(DiffusionPipeline.download(model, use_safetensors=True))
    except OSError as error:
        raise FolderRefusedError(f"model: {model} is no folder here, and cannot be downloaded: {error}") from error


def _is_lora(folder: Path) -> bool:
    return (folder / LORA_WEIGHT_NAME_SAFE).is_file() and not (folder / "model_index.json").exists()


def _base(folder: Path, contract: SamplingContract | None) -> Path:
    """Return the folder of the pipeline that the LoRA file in `folder` is made for."""
    if contract is None or contract.base is None:
        raise FolderRefusedError(f"base: {folder} holds a LoRA file, but no {FILE_NAME} that names its base model")
    beside = folder / contract.base
    return beside if beside.is_dir() else _folder(contract.base)


def _family(folder: Path) -> Family:
    index = folder / "model_index.json"
    if not index.is_file():
        raise FolderRefusedError(f"model_index.json: missing in {folder}, so it is not a diffusers pipeline")
    pipeline, served = json.loads(index.read_bytes()).get("_class_name"), registry.pipelines()
    if pipeline not in served:
        raise FolderRefusedError(f"family: this worker serves {', '.join(served)}, not {pipeline}")
    return served[pipeline]


def _contract(folder: Path) -> SamplingContract | None:
    try:
        return SamplingContract.load(folder)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, part['loc'])) or FILE_NAME}: {part['msg']}" for part in error.errors())
        raise FolderRefusedError("; ".join(faults)) from error


def _pipeline(folder: Path, device: torch.device, dtype: torch.dtype, lora: Path | None) -> Any:
    # A LoRA is added to the weights in float32, before they are rounded to `dtype`.
    loaded = torch.float32 if lora else dtype
    try:
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=loaded, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise FolderRefusedError(f"model: {folder} does not load: {error}") from error
    if lora:
        _fuse(pipeline, lora)
    for network in pipeline.components.values():
        if isinstance(network, torch.nn.Module):
            network.requires_grad_(False).eval().to(device)
            if lora:
                network.to(dtype)
    if dtype == torch.float16 and pipeline.vae.config.get("force_upcast"):
        pipeline.vae.float()  # SDXL's own overflows in float16
    return pipeline


def _fuse(pipeline: Any, folder: Path) -> None:
    """Add the LoRA file in `folder` to the pipeline's weights, for good."""
    try:
        pipeline.load_lora_weights(folder, weight_name=LORA_WEIGHT_NAME_SAFE)
        if not pipeline.get_active_adapters():
            raise ValueError("no layer of the base model takes it")
        pipeline.fuse_lora()
    except (ValueError, RuntimeError, KeyError) as error:
        raise FolderRefusedError(f"{LORA_WEIGHT_NAME_SAFE}: does not fit the base model: {error}") from error
    pipeline.unload_lora_weights()
