"""A model's pictures beside its teacher's, made from equal noise, in one feature space."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch.nn import functional as F

from distill.evaluation import metrics

CLOUD = 512
"""At most so many prompts, evenly chosen, are compared each with each: 10,000 would take tens of gigabytes."""


def compare(ours: torch.Tensor, theirs: torch.Tensor, groups: Mapping[str, slice]) -> dict[str, Any]:
    """Compare features [P, R, D]; `groups` name ranges of prompts whose diversity is reported separately."""
    few, of_teacher = (features[:: math.ceil(len(features) / CLOUD)] for features in (ours, theirs))
    return {
        "diversity": {
            name: _beside(metrics.pairwise_diversity, ours[part], theirs[part]) for name, part in groups.items()
        },
        "vendi_share": {name: _beside(metrics.vendi_share, ours[part], theirs[part]) for name, part in groups.items()},
        "manifolds": asdict(metrics.manifolds(of_teacher.flatten(0, 1), few.flatten(0, 1))),
        "kernel_distance": asdict(metrics.kernel_distance_and_floor(of_teacher, few)),
        "pairing": pairing(ours, theirs),
    }


def pairing(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, float]:
    """The mean cosine to the teacher's picture of the same noise, and to those of the same prompt and other noise."""
    cosines = F.normalize(ours, dim=-1) @ F.normalize(theirs, dim=-1).transpose(1, 2)
    same = cosines.diagonal(dim1=1, dim2=2)
    samples = ours.shape[1]
    other = (cosines.sum((1, 2)) - same.sum(1)) / (samples * (samples - 1))
    return {"same_noise": float(same.mean()), "other_noise": float(other.mean())}


def _beside(metric: Any, ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, Any]:
    mine, its = metric(ours), metric(theirs)
    return {
        "model": float(mine.mean()),
        "teacher": float(its.mean()),
        "ratio": asdict(metrics.paired_ratio(mine, its)),
    }
