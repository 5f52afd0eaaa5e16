"""One call of `fourstep evaluate`, on one process or on several that a launcher started."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill.config import read_prompts
from distill.emoji import benchmark as emoji
from distill.evaluation import geneval, paper
from distill.evaluation.benchmark import Benchmark
from distill.evaluation.pictures import write_text
from distill.evaluation.report import EvaluationConfig, evaluate


@dataclass(frozen=True)
class Request:
    """Options of an evaluation: the paper's protocol, a prompt file, GenEval's tasks and its networks' folders."""

    paper: bool
    prompts: Path | None
    geneval: Path | None
    detector: Path | None
    colors: Path | None


def run(model: Path, teacher: Path, request: Request, config: EvaluationConfig, out: Path) -> dict[str, Any]:
    """Evaluate, and return the report; an empty one on all processes but the first. Raises as `evaluate` does."""
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", "0")))
    benchmarks, config = _benchmarks(request, config)
    main, *others = benchmarks
    report = evaluate(model, teacher, main, config, out)
    for other in others:
        few = replace(config, seeds=paper.GENEVAL_SEEDS, features={}, scores={})
        report |= {other.name: evaluate(model, teacher, other, few, out / other.name).get(other.name)}
    if os.environ.get("RANK", "0") != "0":
        return {}
    if request.paper:
        report["paper"] = paper.rows(report)
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def _benchmarks(request: Request, config: EvaluationConfig) -> tuple[list[Benchmark], EvaluationConfig]:
    """The benchmarks to run, all networks of their judges loaded. Raises ValueError for options that do not go
    together."""
    if request.geneval and not (request.detector and request.colors):
        raise ValueError("--geneval: needs --detector and --colors, the folders of its two networks")
    if request.prompts and request.geneval and not request.paper:
        raise ValueError("--prompts: GenEval has prompts of its own; leave out one of the two")
    found = []
    if request.prompts:
        found.append(Benchmark("prompts", tuple(read_prompts(request.prompts))))
    if request.geneval and request.detector and request.colors:
        found.append(geneval.benchmark(request.geneval, request.detector, request.colors))
    if found:
        return found, config
    spaces = {emoji.NAME: emoji.ENCODER} | dict(config.features)
    return [emoji.benchmark(spaces[emoji.NAME])], replace(config, features=spaces)
