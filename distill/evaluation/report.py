"""`fourstep evaluate`: sample a model and its teacher from equal noise, compare them, write report and grids."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.evaluation import comparison, feature_spaces, measuring, metrics, pictures, scores
from distill.evaluation.benchmark import Benchmark
from distill.evaluation.feature_spaces import FeatureSpace
from distill.evaluation.measuring import Measured, Read, fingerprint
from distill.evaluation.pictures import PictureSet, Sampling

FIRST_SEED = 1000
MEASURED = "measured"
"""The folder of what networks say of pictures."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Pictures of each prompt, the folders of feature spaces and scores by their names, how folders without
    sampling.json are sampled, and whether the pictures are kept."""

    seeds: int
    features: Mapping[str, Path]
    scores: Mapping[str, Path]
    sampling: Sampling
    keep_pictures: bool = True


def evaluate(model: Path, teacher: Path, benchmark: Benchmark, config: EvaluationConfig, out: Path) -> dict[str, Any]:
    """Write `report.json`, `model.png` and `teacher.png` to `out` (a row for each prompt, a column for each seed);
    returns the report, on the first process alone.

    Several processes that call it alike share the pictures and their reading, and an interrupted evaluation goes on
    where it was. Every network is loaded before the first picture is made, so that a missing one costs nothing. Raises
    ValueError or OSError for whatever of the options does not fit.
    """
    metrics.halves(config.seeds)
    spaces, judges = feature_spaces.load(config.features), scores.load(config.scores)
    prompts, seeds = benchmark.prompts, range(FIRST_SEED, FIRST_SEED + config.seeds)
    if len(prompts) < 2:
        raise ValueError("--prompts: a comparison takes at least 2 prompts")
    ours, theirs = (
        pictures.make(folder, prompts, seeds, out, config.sampling, config.keep_pictures) for folder in (model, teacher)
    )
    readers = {_reader_name(name, config.features.get(name)): _of_space(space) for name, space in spaces.items()}
    graded = {_reader_name(name, config.scores[name]): _of_score(score, prompts) for name, score in judges.items()}
    measured = measuring.measure(ours, theirs, readers | graded | _of_judge(benchmark), out / MEASURED)
    if os.environ.get("RANK", "0") != "0":
        return {}
    ours.save_grid(out / "model.png")
    theirs.save_grid(out / "teacher.png")
    report = _compared(ours, theirs, benchmark, dict(zip(spaces, readers, strict=True)), measured) | {
        "model": {"sha256": ours.sha256, "evaluations": ours.evaluations},
        "teacher": {"sha256": theirs.sha256, "evaluations": theirs.evaluations},
        "scores": {name: _difference(measured, reader) for name, reader in zip(judges, graded, strict=True)},
    }
    pictures.write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def compared(
    ours: PictureSet, theirs: PictureSet, benchmark: Benchmark, spaces: Mapping[str, FeatureSpace], out: Path
) -> dict[str, Any]:
    """The sections of a report that need no network but those of `spaces` and of the benchmark's judge; what these say
    is kept in `out`."""
    readers: dict[str, Read] = {name: _of_space(space) for name, space in spaces.items()}
    measured = measuring.measure(ours, theirs, readers | _of_judge(benchmark), out / MEASURED)
    return _compared(ours, theirs, benchmark, dict(zip(spaces, readers, strict=True)), measured)


def _compared(
    ours: PictureSet, theirs: PictureSet, benchmark: Benchmark, readers: Mapping[str, str], measured: Measured
) -> dict[str, Any]:
    """`readers`: feature space → the reader that measured it."""
    judge, groups = benchmark.judge, benchmark.groups
    judged = {benchmark.name: judge.report(measured.ours[judge.name], measured.theirs[judge.name])} if judge else {}
    return {
        "prompts": len(theirs.prompts),
        "seeds": list(theirs.seeds),
        "pixel_error": measured.pixel_error,
        "spaces": {
            name: comparison.compare(measured.ours[reader], measured.theirs[reader], groups)
            for name, reader in readers.items()
        },
        **judged,
    }


def _reader_name(name: str, folder: Path | None) -> str:
    return f"{name}-{fingerprint(folder)}" if folder is not None and folder.exists() else name


def _of_space(space: FeatureSpace) -> Read:
    return lambda part, images: space(images.flatten(0, 1)).unflatten(0, images.shape[:2])


def _of_score(score: scores.Score, prompts: tuple[str, ...]) -> Read:
    return lambda part, images: score(prompts[part], images).unsqueeze(-1)


def _of_judge(benchmark: Benchmark) -> dict[str, Read]:
    return {benchmark.judge.name: benchmark.judge.read} if benchmark.judge else {}


def _difference(measured: Measured, reader: str) -> dict[str, Any]:
    mine, its = (of[reader].squeeze(-1).mean(1) for of in (measured.ours, measured.theirs))
    return {
        "model": float(mine.mean()),
        "teacher": float(its.mean()),
        "difference": asdict(metrics.paired_difference(mine, its)),
    }
