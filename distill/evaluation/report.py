"""`fourstep evaluate`: sample a model and its teacher from equal noise, compare them, write report and grids."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from distill.evaluation import comparison, feature_spaces, metrics, pictures, scores
from distill.evaluation.benchmark import Benchmark
from distill.evaluation.feature_spaces import FeatureSpace
from distill.evaluation.pictures import PictureSet, Sampling

FIRST_SEED = 1000


@dataclass(frozen=True)
class EvaluationConfig:
    """Pictures of each prompt, the folders of feature spaces and scores by their names, and how folders without
    sampling.json are sampled."""

    seeds: int
    features: Mapping[str, Path]
    scores: Mapping[str, Path]
    sampling: Sampling


def evaluate(model: Path, teacher: Path, benchmark: Benchmark, config: EvaluationConfig, out: Path) -> dict[str, Any]:
    """Write `report.json`, `model.png` and `teacher.png` to `out` (a row for each prompt, a column for each seed);
    returns the report.

    Every network is loaded before the first picture is made, so that a missing one costs nothing. Raises ValueError
    or OSError for whatever of the options does not fit.
    """
    metrics.halves(config.seeds)
    spaces, judges = feature_spaces.load(config.features), scores.load(config.scores)
    prompts, seeds = benchmark.prompts, range(FIRST_SEED, FIRST_SEED + config.seeds)
    if len(prompts) < 2:
        raise ValueError("--prompts: a comparison takes at least 2 prompts")
    ours, theirs = (pictures.make(folder, prompts, seeds, out, config.sampling) for folder in (model, teacher))
    if ours.images.shape != theirs.images.shape:
        sizes = " and ".join(f"{one.images.shape[2]}×{one.images.shape[3]}" for one in (ours, theirs))
        raise ValueError(f"model and teacher make pictures of different sizes, {sizes}; they cannot be compared")
    ours.save_grid(out / "model.png")
    theirs.save_grid(out / "teacher.png")
    report = compared(ours, theirs, benchmark, spaces) | {
        "model": {"sha256": ours.sha256, "evaluations": ours.evaluations},
        "teacher": {"sha256": theirs.sha256, "evaluations": theirs.evaluations},
        "scores": {name: _score_difference(score, ours, theirs) for name, score in judges.items()},
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def compared(
    ours: PictureSet, theirs: PictureSet, benchmark: Benchmark, spaces: Mapping[str, FeatureSpace]
) -> dict[str, Any]:
    """The sections of a report that need no network but those of `spaces` and of the benchmark's judge."""
    judged = {benchmark.name: benchmark.judge(ours, theirs)} if benchmark.judge else {}
    return {
        "prompts": len(theirs.prompts),
        "seeds": list(theirs.seeds),
        "pixel_error": comparison.pixel_error(ours, theirs),
        "spaces": {name: comparison.in_space(space, ours, theirs, benchmark.groups) for name, space in spaces.items()},
        **judged,
    }


def _score_difference(score: scores.Score, ours: PictureSet, theirs: PictureSet) -> dict[str, Any]:
    mine, its = (score(made.prompts, torch.from_numpy(made.images)).mean(1) for made in (ours, theirs))
    return {
        "model": float(mine.mean()),
        "teacher": float(its.mean()),
        "difference": asdict(metrics.paired_difference(mine, its)),
    }
