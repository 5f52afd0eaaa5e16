"""Write a trained student as a servable folder: a diffusers pipeline and its `sampling.json`."""

from pathlib import Path
from typing import Any

import torch

from distill import families, teacher_pipeline
from distill.config import DistillConfig
from jobs.sampling_contract import SamplingContract, Teacher
from worker.weights_hash import weights_sha256


def export(config: DistillConfig, student: Any, out: Path, dtype: torch.dtype) -> SamplingContract:
    """Save the teacher's pipeline with `student` in its denoiser's place into `out`.

    Denoiser and autoencoder are stored in `dtype`; the text encoders stay as the teacher's folder has them.
    """
    pipeline = teacher_pipeline.load(config.teacher)
    family = families.of(pipeline)
    setattr(pipeline, family.denoiser, student.to(dtype))
    pipeline.vae.to(dtype)
    pipeline.scheduler = family.serving_scheduler(pipeline)
    pipeline.save_pretrained(out, safe_serialization=True)
    side = student.config.sample_size * pipeline.vae_scale_factor
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
