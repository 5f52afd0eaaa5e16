"""Write a trained student as a servable folder: a diffusers pipeline and its `sampling.json`."""

from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel

from distill import teacher_pipeline
from distill.config import DistillConfig
from jobs.sampling_contract import SamplingContract, Teacher
from worker.weights_hash import weights_sha256


def export(config: DistillConfig, student: SD3Transformer2DModel, out: Path, dtype: torch.dtype) -> SamplingContract:
    """Save the teacher's pipeline with `student` in its transformer's place into `out`.

    Transformer and autoencoder are stored in `dtype`; the text encoders stay as the teacher's folder has them.
    """
    pipeline = teacher_pipeline.load(config.teacher)
    pipeline.transformer = student.to(dtype)
    pipeline.vae.to(dtype)
    pipeline.save_pretrained(out, safe_serialization=True)
    side = student.config.sample_size * pipeline.vae_scale_factor
    contract = SamplingContract(
        method="dp-dmd" if config.lambda_ > 0 else "dmd",
        family="sd3",
        prediction="flow",
        steps=len(config.student_grid.resolve()) - 1,
        sigmas=list(config.student_grid.resolve()),
        guidance_scale=1.0,
        max_sequence_length=config.max_sequence_length,
        sizes=[(side, side)],
        anchor_k=config.anchor_k,
        lambda_=config.lambda_,
        teacher=Teacher(id=config.teacher.name, sha256=weights_sha256(config.teacher)),
        base_sha256=weights_sha256(out),
    )
    contract.save(out)
    return contract
