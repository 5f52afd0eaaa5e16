"""The authors' released DP-DMD checkpoint as a servable folder.

Their training script saves the student transformer's state dict by itself (`…_transformer.pt`; released as
DPDMD-SD35M-4NFE-natural.pt), and their tests sample it in the base model's pipeline: four steps of its own scheduler
without guidance, 256 T5 tokens.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline

from distill import teacher_pipeline
from jobs.sampling_contract import SamplingContract, Teacher
from worker.families.registry import STABLE_DIFFUSION_3
from worker.model_folder.contract import own_contract
from worker.model_folder.weights_hash import weights_sha256

STEPS = 4
ANCHOR_K, LAMBDA = 5, 0.05
"""The released student's training settings, as the paper gives them."""
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of a name that data parallelism, compilation, FSDP and activation checkpointing leave behind."""
LISTED = 8


def import_checkpoint(file: Path, base: str, out: Path) -> SamplingContract:
    """Write `base`, a folder or hub id of Stable Diffusion 3, with the weights of `file` in its transformer to `out`.

    Raises ValueError, naming the keys, when they are not those of the base transformer or differ in shape, and for a
    file that holds more than tensors; OSError when something cannot be read.
    """
    state = read(file)
    folder = _folder(base)
    if teacher_pipeline.family(folder) is not STABLE_DIFFUSION_3:
        raise ValueError(f"--base: {base} is no Stable Diffusion 3 pipeline, which the checkpoint is made for")
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, use_safetensors=True)
    check(state, pipeline.transformer.state_dict())
    pipeline.transformer.load_state_dict(state)
    pipeline.transformer.to(next(iter(state.values())).dtype)
    pipeline.save_pretrained(out, safe_serialization=True)
    contract = _contract(pipeline, Teacher(id=base, sha256=weights_sha256(folder)), out)
    contract.save(out)
    return contract


def read(file: Path) -> dict[str, torch.Tensor]:
    """The tensors in `file` by the transformer's own names; no code in it is run. Raises ValueError for others."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{file}: not a checkpoint of tensors alone ({str(error).splitlines()[0]})") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{file}: expected names with tensors, the transformer's state dict")
    return {_bare(name): value for name, value in content.items()}


def check(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError that lists what is missing, extra or of another shape."""
    faults = {
        "missing": sorted(expected.keys() - state.keys()),
        "extra": sorted(state.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & state.keys())
            if state[name].shape != expected[name].shape
        ],
    }
    lines = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if lines:
        raise ValueError(f"the checkpoint does not fit the base transformer: {'; '.join(lines)}")


def _contract(pipeline: Any, teacher: Teacher, out: Path) -> SamplingContract:
    """Their sampling: the grid that the base model's scheduler makes of four steps (for SD3.5-M 1, .858, .602, .009,
    0: the fourth evaluation hardly moves the picture)."""
    own = own_contract(pipeline, STEPS)
    made_by = {"method": "dp-dmd", "anchor_k": ANCHOR_K, "lambda_": LAMBDA, "teacher": teacher}
    return own.model_copy(update=made_by | {"base_sha256": weights_sha256(out)})


def _folder(base: str) -> Path:
    return Path(base) if Path(base).is_dir() else Path(DiffusionPipeline.download(base, use_safetensors=True))


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _some(names: list[str]) -> str:
    more = f", … {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
