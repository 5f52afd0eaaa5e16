"""The averaged students of a run that came nearest to their teacher, kept beside its checkpoints.

`students/step-000050/` holds the average alone and, in `state.json`, what was measured of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from distill.training import checkpoints

FOLDER = "students"
MEASURE = "energy_distance"
"""The measure that ranks them, the less the better: lost diversity adds to it as blur and noise do."""


def keep(run: Path, average: nn.Module, done: int, measured: Mapping[str, float], count: int) -> None:
    """Write the student after step `done`, and keep the `count` best. Every rank must call it; raises as
    `checkpoints.save` does."""
    checkpoints.save(run, {"average": average}, done, measured, lambda run: ranked(run)[count:], FOLDER)


def ranked(run: Path) -> list[int]:
    """The steps whose students `run` keeps, the best first."""
    return sorted(checkpoints.steps_of(run, FOLDER), key=lambda step: (_distance(run, step), step))


def _distance(run: Path, step: int) -> float:
    state = json.loads((run / FOLDER / f"step-{step:06}" / checkpoints.STATE).read_text())
    return state["settings"][MEASURE]
