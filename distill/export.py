"""Write a trained student as a servable folder: a diffusers pipeline and its `sampling.json`."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill import teacher_pipeline
from distill.config import DistillConfig
from distill.training import roles
from jobs.sampling_contract import FILE_NAME, SamplingContract, Teacher
from worker.families import registry
from worker.model_folder.weights_hash import weights_sha256


def export(config: DistillConfig, student: nn.Module, out: Path, dtype: torch.dtype) -> SamplingContract:
    """Save the teacher's pipeline with the student's weights in its denoiser into `out`.

    `student` is a network like the teacher's or, with `config.lora_rank`, the parameters of an adapter, which is
    merged. Denoiser and autoencoder are stored in `dtype`; the text encoders stay as the teacher's folder has them.
    """
    pipeline = teacher_pipeline.load(config.teacher)
    family = registry.of(pipeline)
    network: Any = getattr(pipeline, family.denoiser).float()
    if config.lora_rank:
        roles.merge(network, student, family.lora_targets)
    else:
        network.load_state_dict(student.state_dict())
    network.to(dtype)
    pipeline.vae.to(dtype)
    pipeline.scheduler = family.serving_scheduler(pipeline)
    pipeline.save_pretrained(out, safe_serialization=True)
    contract = _contract(config, pipeline, weights_sha256(config.teacher), weights_sha256(out))
    contract.save(out)
    return contract


def export_lora(config: DistillConfig, student: nn.Module, out: Path, dtype: torch.dtype) -> SamplingContract:
    """Write the student's adapter into `out` as a LoRA file, with a contract that names the teacher as its base.

    Plain diffusers takes it by `load_lora_weights`. Raises ValueError for a run without adapters.
    """
    if not config.lora_rank:
        raise ValueError("--lora: this run trained whole networks; only a run with lora_rank has adapters")
    pipeline = teacher_pipeline.load(config.teacher, text_encoders=False)
    family = registry.of(pipeline)
    state = roles.lora_state(getattr(pipeline, family.denoiser).float(), student, family.lora_targets)
    layers = {name: value.to(dtype).contiguous() for name, value in state.items()}
    pipeline.save_lora_weights(out, **{f"{family.denoiser}_lora_layers": layers})
    teacher_sha256 = weights_sha256(config.teacher)
    contract = _contract(config, pipeline, teacher_sha256, teacher_sha256)
    # Relative, so that the two folders can be moved together.
    contract = contract.model_copy(update={"base": os.path.relpath(config.teacher, out)})
    contract.save(out)
    return contract


def _contract(config: DistillConfig, pipeline: Any, teacher_sha256: str, base_sha256: str) -> SamplingContract:
    """The grid that the student was trained on, and whose student it is."""
    family = registry.of(pipeline)
    grid = config.student_grid.resolve(config.family)
    chosen = family.default_sequence_length(pipeline) is not None
    return SamplingContract(
        method=config.method_name,
        family=family.name,
        prediction=family.prediction(pipeline),
        steps=len(grid) - 1,
        guidance_scale=1.0,
        max_sequence_length=config.max_sequence_length if chosen else None,
        sizes=[family.native_size(pipeline)],
        anchor_k=config.anchor_k,
        lambda_=config.lambda_,
        teacher=Teacher(id=config.teacher.name, sha256=teacher_sha256),
        base_sha256=base_sha256,
        examples=_examples(config.teacher),
        **family.contract_grid(grid),
    )


def _examples(teacher: Path) -> list[str]:
    """The prompts that the teacher draws well, which its student then does too."""
    return SamplingContract.load(teacher).examples if (teacher / FILE_NAME).is_file() else []
