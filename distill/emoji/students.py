"""Distil students of the bundled teacher by DP-DMD and by DMD, equally long, and measure both against the teacher."""

import json
from pathlib import Path
from typing import Any

import yaml

from distill import runs
from distill.emoji import benchmark
from distill.evaluation import report
from distill.evaluation.pictures import Sampling, write_text
from distill.training import checkpoints
from jobs.sampling_contract import FILE_NAME, SamplingContract
from worker.model_folder.weights_hash import weights_sha256

RECIPE = Path("distill/configs/emoji.yaml")
METHODS = ("dp-dmd", "dmd")
ONLY_DIVERSE = ("lambda",)
"""Settings of the recipe that plain DMD does not know."""
SAVE_EVERY = 25
"""Updates. One takes half a minute on a slow core, and what a kill undoes is done again."""
PICTURES = 9
"""Pictures of each prompt in the evaluation."""


def make(method: str, teacher: Path, prompts: Path, run: Path, out: Path) -> Path:
    """Train the student of `method` in `run`, or go on with it, and export it to `out`; returns `out`.

    Nothing is done where `out` holds a student of this very teacher. Raises OtherSettingsError when `run` was started
    with other settings or of another teacher's folder.
    """
    if not _is_student_of(teacher, out):
        run.mkdir(parents=True, exist_ok=True)
        if checkpoints.steps_of(run):
            runs.resume(run, out)
        else:
            recipe = run / "recipe.yaml"
            write_text(recipe, yaml.safe_dump(recipe_of(method, teacher, prompts), sort_keys=False))
            runs.start(recipe, run, out)
    return out


def recipe_of(method: str, teacher: Path, prompts: Path) -> dict[str, Any]:
    """The bundled recipe with another method, teacher and prompt file."""
    recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text())
    recipe |= {"method": method, "teacher": str(teacher), "prompts": str(prompts), "save_every": SAVE_EVERY}
    return {name: value for name, value in recipe.items() if method == "dp-dmd" or name not in ONLY_DIVERSE}


def evaluate(students: dict[str, Path], teacher: Path, encoder: Path, work: Path, out: Path) -> None:
    """Write the reports of all `students`, by method, to the JSON file `out`. Pictures and what is measured of them are
    kept in `work`, so that an interrupted evaluation goes on."""
    config = report.EvaluationConfig(PICTURES, {benchmark.NAME: encoder}, {}, Sampling(30, 1.0))
    judge = benchmark.benchmark(encoder)
    reports = {
        method: report.evaluate(student, teacher, judge, config, work / method) for method, student in students.items()
    }
    write_text(out, json.dumps(reports, indent=2) + "\n")


def _is_student_of(teacher: Path, folder: Path) -> bool:
    if not (folder / FILE_NAME).is_file():
        return False
    made_of = SamplingContract.load(folder).teacher
    return made_of is not None and made_of.sha256 == weights_sha256(teacher)
