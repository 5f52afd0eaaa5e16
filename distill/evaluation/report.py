"""`fourstep evaluate`: sample a model and its teacher from equal noise, compare them, write report and grids."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from distill import config, image_grid
from distill.emoji.encoder import EmojiEncoder
from distill.evaluation import comparison, emoji, feature_spaces, geneval, metrics, pictures, scores
from distill.evaluation.pictures import PictureSet, Sampling

FIRST_SEED = 1000
GRID_PROMPTS = 24
ALL = {"all": slice(None)}
EMOJI_GROUPS = {"vague": emoji.VAGUE, "names": emoji.NAMES}


@dataclass(frozen=True)
class GenEval:
    """The benchmark's tasks, and the folders of its two networks."""

    tasks: Path
    detector: Path
    colors: Path


@dataclass(frozen=True)
class Protocol:
    """What is asked and how it is judged. The prompts are those of a file, of GenEval or of the emoji world."""

    seeds: int
    features: Mapping[str, Path]
    scores: Mapping[str, Path]
    sampling: Sampling
    prompts: Path | None = None
    geneval: GenEval | None = None


def evaluate(model: Path, teacher: Path, protocol: Protocol, out: Path) -> dict[str, Any]:
    """Write `report.json`, `model.png` and `teacher.png` to `out` (a row for each prompt, a column for each seed);
    returns the report.

    Every network is loaded before the first picture is made, so that a missing one costs nothing. Raises ValueError
    or OSError for whatever of the options does not fit.
    """
    metrics.halves(protocol.seeds)
    spaces, judges = feature_spaces.load(protocol.features), scores.load(protocol.scores)
    benchmark = _Benchmark(protocol.geneval) if protocol.geneval else None
    prompts, groups = _asked(protocol, benchmark)
    if len(prompts) < 2:
        raise ValueError("--prompts: a comparison takes at least 2 prompts")
    seeds = range(FIRST_SEED, FIRST_SEED + protocol.seeds)
    ours, theirs = (pictures.make(folder, prompts, seeds, out, protocol.sampling) for folder in (model, teacher))
    if ours.images.shape != theirs.images.shape:
        sizes = " and ".join(f"{one.images.shape[2]}×{one.images.shape[3]}" for one in (ours, theirs))
        raise ValueError(f"model and teacher make pictures of different sizes, {sizes}; they cannot be compared")
    for role, made in (("model", ours), ("teacher", theirs)):
        image_grid.save_grid(
            made.images[:GRID_PROMPTS].reshape(-1, *made.images.shape[2:]), len(seeds), out / f"{role}.png"
        )
    report: dict[str, Any] = {
        "prompts": len(prompts),
        "seeds": list(seeds),
        "model": {"sha256": ours.sha256, "evaluations": ours.evaluations},
        "teacher": {"sha256": theirs.sha256, "evaluations": theirs.evaluations},
        "pixel_error": comparison.pixel_error(ours, theirs),
        "spaces": {name: _in_space(space, ours, theirs, groups) for name, space in spaces.items()},
        "scores": {name: _judged(judge, ours, theirs) for name, judge in judges.items()},
    }
    if groups is EMOJI_GROUPS and "emoji" in protocol.features:
        report["emoji"] = emoji.report(ours, theirs, EmojiEncoder.load(protocol.features["emoji"]))
    if benchmark:
        report["geneval"] = benchmark.report(ours, theirs)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _asked(protocol: Protocol, benchmark: "_Benchmark | None") -> tuple[tuple[str, ...], Mapping[str, slice]]:
    if protocol.prompts and benchmark:
        raise ValueError("--prompts: GenEval has prompts of its own; leave out one of the two")
    if benchmark:
        return tuple(task["prompt"] for task in benchmark.tasks), ALL
    if protocol.prompts:
        return tuple(config.read_prompts(protocol.prompts)), ALL
    return emoji.prompts(), EMOJI_GROUPS


class _Benchmark:
    """GenEval with its networks loaded."""

    def __init__(self, files: GenEval) -> None:
        self.tasks = geneval.read_tasks(files.tasks)
        self.detect = geneval.detector(files.detector)
        self.colors = geneval.colors(files.colors)

    def report(self, ours: PictureSet, theirs: PictureSet) -> dict[str, Any]:
        mine, its = (
            geneval.judge(self.tasks, torch.from_numpy(made.images), self.detect, self.colors)
            for made in (ours, theirs)
        )
        return {
            "model": geneval.by_tag(self.tasks, mine),
            "teacher": geneval.by_tag(self.tasks, its),
            "difference": asdict(metrics.paired_difference(mine.mean(1), its.mean(1))),
        }


def _in_space(
    space: feature_spaces.FeatureSpace, ours: PictureSet, theirs: PictureSet, groups: Mapping[str, slice]
) -> dict[str, Any]:
    mine, its = (space(made.flat()).unflatten(0, made.images.shape[:2]) for made in (ours, theirs))
    return comparison.compare(mine, its, groups)


def _judged(judge: scores.Score, ours: PictureSet, theirs: PictureSet) -> dict[str, Any]:
    mine, its = (judge(made.prompts, torch.from_numpy(made.images)).mean(1) for made in (ours, theirs))
    return {
        "model": float(mine.mean()),
        "teacher": float(its.mean()),
        "difference": asdict(metrics.paired_difference(mine, its)),
    }
