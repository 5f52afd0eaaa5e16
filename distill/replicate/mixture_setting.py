"""Train and measure the runs of the mixture setting, one JSON file each. What is there already is not run again."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file

from distill.replicate import measures
from distill.replicate.mixture import Mixture
from distill.replicate.mixture_run import NOISE_SEEDS, Run
from distill.replicate.results import write_json
from distill.replicate.seeded_attention import SeededAttention
from distill.replicate.students import Distillation, Size, started

KEY = "cell"
"""Key of a run's settings in its file."""
MEASURED = (0.25, 0.5, 0.75, 1.0)
"""Shares of a run's updates after which its students are measured."""
TEACHER_AT = (30, 4)
"""Steps at which the teacher itself is measured."""


def train_and_measure(runs: Sequence[Run], size: Size, out: Path) -> None:
    """Train and measure every run that `out` does not have yet.

    A file counts only if it was made with the run's settings and `size`. A run that was killed begins anew. Raises
    ValueError when `out` holds a run of that name with other settings.
    """
    torch.set_flush_denormal(True)
    out.mkdir(parents=True, exist_ok=True)
    missing = [run for run in runs if not _done(run, size, out)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        all_runs = progress.add_task("runs", total=len(runs), completed=len(runs) - len(missing))
        current = progress.add_task("")

        def report_progress(name: str, done: int, of: int) -> None:
            progress.update(current, description=name, completed=done, total=of)

        for run in missing:
            write_json(out / f"{run.name}.json", _measured(run, size, out, report_progress))
            progress.advance(all_runs)


def _done(run: Run, size: Size, out: Path) -> bool:
    path = out / f"{run.name}.json"
    if not path.exists():
        return False
    found = json.loads(path.read_text())
    for name, now in ((KEY, run.settings()), ("size", asdict(size))):
        if differing := [key for key in now if found[name].get(key) != now[key]]:
            raise ValueError(f"{path} was made with another {', '.join(differing)}; take another --out")
    return True


def _measured(run: Run, size: Size, out: Path, report_progress: Any) -> dict[str, Any]:
    """Train one run's students, and measure them on the way and in the end."""
    before = time.process_time()
    world = Mixture.drawn(run.dimension, run.seed)
    teacher = measures.reference(world, run.guidance, size.samples, 8 * size.samples)
    start = started(world, size, run.seed)
    distillation = Distillation(world, run, size, start)
    labels = measures.labels(size.samples).repeat(size.seeds)
    due = {max(1, round(share * run.updates)) for share in MEASURED}

    def read(network: SeededAttention, done: int) -> dict[str, Any]:
        predict = network.conditional(labels)
        made = measures.student_samples(predict, run.dimension, size.seeds, run.student_grid, size.samples)
        return {"updates": done, "seeds": [measures.measure(world, part, teacher) for part in made.chunk(size.seeds)]}

    curve = [read(start, 0)]
    for done in distillation.train():
        report_progress(run.name, done, run.updates)
        if done in due:
            curve.append(read(cast(SeededAttention, distillation.average.module), done))
    weights = {name: value.contiguous() for name, value in distillation.average.module.state_dict().items()}
    save_file(weights, out / f"{run.name}.safetensors")
    return {
        KEY: run.settings(),
        "size": asdict(size),
        "teacher": {str(steps): _teacher(world, run, size, teacher, steps) for steps in TEACHER_AT},
        "curve": curve,
        "cpu_seconds": round(time.process_time() - before, 1),
        "torch": torch.__version__,
    }


def _teacher(world: Mixture, run: Run, size: Size, teacher: measures.Reference, steps: int) -> dict[str, float]:
    made = measures.teacher_samples(world, run.guidance, size.samples, NOISE_SEEDS[0], steps)
    return measures.measure(world, made, teacher)
