"""Run the cells of the mixture bed, one JSON file each; what is there already is not run again."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file

from distill.replicate import measures
from distill.replicate.cell import NOISE_SEEDS, Cell
from distill.replicate.mixture import Mixture
from distill.replicate.seeded_attention import SeededAttention
from distill.replicate.students import Distillation, Size, started

MEASURED = (0.25, 0.5, 0.75, 1.0)
"""Shares of a cell's updates after which its students are measured."""
TEACHER_AT = (30, 4)
"""Steps at which the teacher itself is measured."""


def run(cells: Sequence[Cell], size: Size, out: Path) -> None:
    """Train and measure every cell that `out` does not have yet.

    A file counts only if it was made with the cell's settings and `size`. Killed in the middle of a cell, a run begins
    that cell anew. Raises ValueError when `out` holds a cell of that name with other settings.
    """
    torch.set_flush_denormal(True)
    out.mkdir(parents=True, exist_ok=True)
    missing = [cell for cell in cells if not _done(cell, size, out)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        all_cells = progress.add_task("cells", total=len(cells), completed=len(cells) - len(missing))
        current = progress.add_task("")

        def report_progress(name: str, done: int, of: int) -> None:
            progress.update(current, description=name, completed=done, total=of)

        for cell in missing:
            write_json(out / f"{cell.name}.json", _measured(cell, size, out, report_progress))
            progress.advance(all_cells)


def write_json(path: Path, content: Any) -> None:
    """The whole file or none."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)


def _done(cell: Cell, size: Size, out: Path) -> bool:
    path = out / f"{cell.name}.json"
    if not path.exists():
        return False
    found = json.loads(path.read_text())
    for name, now in (("cell", cell.settings()), ("size", asdict(size))):
        if differing := [key for key in now if found[name].get(key) != now[key]]:
            raise ValueError(f"{path} was made with another {', '.join(differing)}; take another --out")
    return True


def _measured(cell: Cell, size: Size, out: Path, report_progress: Any) -> dict[str, Any]:
    """Train one cell's students; what is measured on the way and in the end."""
    before = time.process_time()
    world = Mixture.drawn(cell.dimension, cell.seed)
    teacher = measures.reference(world, cell.guidance, size.samples, 8 * size.samples)
    start = started(world, size, cell.seed)
    distillation = Distillation(world, cell, size, start)
    labels = measures.labels(size.samples).repeat(size.seeds)
    due = {max(1, round(share * cell.updates)) for share in MEASURED}

    def read(network: SeededAttention, done: int) -> dict[str, Any]:
        predict = network.conditional(labels)
        made = measures.student_samples(predict, cell.dimension, size.seeds, cell.student_grid, size.samples)
        return {"updates": done, "seeds": [measures.measure(world, part, teacher) for part in made.chunk(size.seeds)]}

    curve = [read(start, 0)]
    for done in distillation.train():
        report_progress(cell.name, done, cell.updates)
        if done in due:
            curve.append(read(cast(SeededAttention, distillation.average.module), done))
    weights = {name: value.contiguous() for name, value in distillation.average.module.state_dict().items()}
    save_file(weights, out / f"{cell.name}.safetensors")
    return {
        "cell": cell.settings(),
        "size": asdict(size),
        "teacher": {str(steps): _teacher(world, cell, size, teacher, steps) for steps in TEACHER_AT},
        "curve": curve,
        "cpu_seconds": round(time.process_time() - before, 1),
        "torch": torch.__version__,
    }


def _teacher(world: Mixture, cell: Cell, size: Size, teacher: measures.Reference, steps: int) -> dict[str, float]:
    made = measures.teacher_samples(world, cell.guidance, size.samples, NOISE_SEEDS[0], steps)
    return measures.measure(world, made, teacher)
