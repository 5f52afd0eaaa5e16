"""A diffusers pipeline folder with its sampling contract, checked and loaded."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from pydantic import ValidationError

from jobs.models import model_name
from jobs.sampling_contract import FILE_NAME, SamplingContract
from worker import sampler
from worker.sampler import StepTable
from worker.stable_diffusion_3 import StableDiffusion3
from worker.weights_hash import weights_sha256

log = logging.getLogger(__name__)

PIPELINES = {"StableDiffusion3Pipeline": "sd3"}
MAX_T5_LENGTH = 512


class FolderRefused(ValueError):
    """A model that cannot be served; the message begins with the name of the field that does not fit."""


@dataclass(frozen=True)
class ServedModel:
    """Everything the engine needs: networks on their device, and the grid they are sampled on."""

    name: str
    sha256: str
    contract: SamplingContract
    table: StepTable
    network: StableDiffusion3


def load(model: str, device: str = "auto", dtype: str = "auto", steps: int = 4) -> ServedModel:
    """Load a pipeline folder, or a hub id, from safetensors only.

    `steps` counts only for a model without sampling.json, which is then served on its own scheduler's grid.
    `device` "auto" means the first CUDA device if there is one, `dtype` "auto" bfloat16 where the device computes in
    it: on CUDA, and on a CPU with AVX512-BF16 or AMX; else float32.
    Raises FolderRefused.
    """
    folder = _folder(model)
    family = _family(folder)
    contract = _contract(folder)
    sha256 = weights_sha256(folder)
    if contract and contract.base_sha256 not in (None, sha256):
        raise FolderRefused(f"base_sha256: {contract.base_sha256} is promised, but the weights hash to {sha256}")
    if contract and contract.family != family:
        raise FolderRefused(f"family: sampling.json says {contract.family}, but the pipeline is {family}")
    pipeline = _pipeline(folder, *device_and_dtype(device, dtype))
    if contract is None:
        log.warning("%s has no %s: serving it on its own scheduler at %d steps", model, FILE_NAME, steps)
        contract = own_contract(pipeline, steps)
    return served(model_name(model), sha256, contract, pipeline)


def served(name: str, sha256: str, contract: SamplingContract, pipeline: Any) -> ServedModel:
    """A loaded StableDiffusion3Pipeline with its contract. Raises FolderRefused when they do not fit each other."""
    _check_fit(contract, pipeline)
    try:
        table = sampler.from_contract(contract)
    except ValueError as error:
        raise FolderRefused(str(error)) from error
    network = StableDiffusion3(pipeline, contract.max_sequence_length or default_sequence_length(pipeline))
    return ServedModel(name, sha256, contract, table, network)


def own_contract(pipeline: Any, steps: int) -> SamplingContract:
    """What a pipeline without sampling.json is served on: its scheduler's grid, no guidance, its native size."""
    try:
        pipeline.scheduler.set_timesteps(steps)
    except ValueError as error:
        raise FolderRefused(f"scheduler: {error}") from error
    native = pipeline.transformer.config.sample_size * pipeline.vae_scale_factor
    return SamplingContract(
        method="none",
        family="sd3",
        prediction="flow",
        steps=steps,
        sigmas=pipeline.scheduler.sigmas.tolist(),
        max_sequence_length=default_sequence_length(pipeline),
        sizes=[(native, native)],
    )


def default_sequence_length(pipeline: Any) -> int:
    """diffusers' default of 256 tokens, or fewer when the T5 tokenizer was made for fewer."""
    return min(256, pipeline.tokenizer_3.model_max_length)


def device_and_dtype(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """What "auto" stands for on this machine. Raises FolderRefused for a device or dtype it does not have."""
    try:
        chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise FolderRefused(f"device: {device} is not a torch device") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise FolderRefused(f"device: {device} was asked for, and torch sees no CUDA device")
    if dtype == "auto":
        return chosen, torch.bfloat16 if chosen.type == "cuda" or _cpu_has_bfloat16() else torch.float32
    if chosen.type == "cpu" and dtype == "float16":
        raise FolderRefused("dtype: float16 is not served on a CPU; use float32 or bfloat16")
    return chosen, getattr(torch, dtype)


def _cpu_has_bfloat16() -> bool:
    """Other CPUs only emulate it, more slowly than they compute in float32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise FolderRefused(f"model: {model} is neither a folder nor a hub id (owner/name)")
    try:
        return Path(DiffusionPipeline.download(model, use_safetensors=True))
    except OSError as error:
        raise FolderRefused(f"model: {model} is no folder here, and cannot be downloaded: {error}") from error


def _family(folder: Path) -> str:
    index = folder / "model_index.json"
    if not index.is_file():
        raise FolderRefused(f"model_index.json: missing in {folder}, so it is not a diffusers pipeline")
    pipeline = json.loads(index.read_bytes()).get("_class_name")
    if pipeline not in PIPELINES:
        raise FolderRefused(f"family: this worker serves {', '.join(PIPELINES)}, not {pipeline}")
    return PIPELINES[pipeline]


def _contract(folder: Path) -> SamplingContract | None:
    try:
        return SamplingContract.load(folder)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, part['loc'])) or FILE_NAME}: {part['msg']}" for part in error.errors())
        raise FolderRefused("; ".join(faults)) from error


def _pipeline(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    try:
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise FolderRefused(f"model: {folder} does not load: {error}") from error
    for network in (pipeline.transformer, pipeline.vae, *_text_encoders(pipeline)):
        network.requires_grad_(False).eval().to(device)
    return pipeline


def _text_encoders(pipeline: Any) -> list[Any]:
    return [pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3]


def _check_fit(contract: SamplingContract, pipeline: Any) -> None:
    config = pipeline.transformer.config
    if contract.prediction != "flow":
        raise FolderRefused(f"prediction: Stable Diffusion 3 predicts the flow, not {contract.prediction}")
    if config.in_channels != pipeline.vae.config.latent_channels:
        raise FolderRefused(
            f"transformer.in_channels: {config.in_channels}, but the VAE has {pipeline.vae.config.latent_channels}"
        )
    if contract.max_sequence_length and contract.max_sequence_length > MAX_T5_LENGTH:
        raise FolderRefused(f"max_sequence_length: {contract.max_sequence_length} is above {MAX_T5_LENGTH}")
    unit = pipeline.vae_scale_factor * config.patch_size
    largest = unit * config.pos_embed_max_size
    for size in contract.sizes:
        if any(side % unit or side > largest for side in size):
            raise FolderRefused(f"sizes: {size} must be multiples of {unit} and at most {largest} pixels")
