"""Write a trained student as a servable folder: a diffusers pipeline and its `sampling.json`."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill import families, roles, teacher_pipeline
from distill.config import DistillConfig
from jobs.sampling_contract import SamplingContract, Teacher
from worker.weights_hash import weights_sha256


def export(config: DistillConfig, student: nn.Module, out: Path, dtype: torch.dtype) -> SamplingContract:
    """Save the teacher's pipeline with the student's weights in its denoiser into `out`.

    `student` is a network like the teacher's or, with `config.lora_rank`, the parameters of an adapter, which is
    merged. Denoiser and autoencoder are stored in `dtype`; the text encoders stay as the teacher's folder has them.
    """
    pipeline = teacher_pipeline.load(config.teacher)
    family = families.of(pipeline)
    network: Any = getattr(pipeline, family.denoiser).float()
    if config.lora_rank:
        roles.merge(network, student)
    else:
        network.load_state_dict(student.state_dict())
    network.to(dtype)
    pipeline.vae.to(dtype)
    pipeline.scheduler = family.serving_scheduler(pipeline)
    pipeline.save_pretrained(out, safe_serialization=True)
    side = network.config.sample_size * pipeline.vae_scale_factor
    grid = config.student_grid.resolve(config.family)
    flow = family.name == "sd3"
    contract = SamplingContract(
        method=config.method_name,
        family=family.name,
        prediction=family.schedule(pipeline).prediction,
        steps=len(grid) - 1,
        sigmas=list(grid) if flow else None,
        timesteps=None if flow else [int(t) for t in grid[:-1]],
        guidance_scale=1.0,
        max_sequence_length=config.max_sequence_length if flow else None,
        sizes=[(side, side)],
        anchor_k=config.anchor_k,
        lambda_=config.lambda_,
        teacher=Teacher(id=config.teacher.name, sha256=weights_sha256(config.teacher)),
        base_sha256=weights_sha256(out),
    )
    contract.save(out)
    return contract


def export_lora(config: DistillConfig, student: nn.Module, out: Path, dtype: torch.dtype) -> None:
    """Write the student's adapter as a LoRA file, to be loaded onto the teacher by `load_lora_weights`.

    Raises ValueError for a run without adapters.
    """
    if not config.lora_rank:
        raise ValueError("--lora: this run trained whole networks; only a run with lora_rank has adapters")
    pipeline = teacher_pipeline.load(config.teacher, text_encoders=False)
    denoiser = families.of(pipeline).denoiser
    state = roles.lora_state(getattr(pipeline, denoiser).float(), student)
    layers = {name: value.to(dtype).contiguous() for name, value in state.items()}
    pipeline.save_lora_weights(out, **{f"{denoiser}_lora_layers": layers})
