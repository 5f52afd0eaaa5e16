"""Settings of runs that take seconds on a tiny teacher, and their logs."""

import json
from pathlib import Path
from typing import Any

from worker.testing import tiny_pipelines

SETTINGS: dict[str, Any] = {
    "steps": 4,
    "batch": 2,
    "student_grid": {"steps": 4, "shift": 3.0},
    "teacher_grid": {"steps": 6, "shift": 3.0},
    "anchor_k": 2,
    "max_sequence_length": tiny_pipelines.TOKENS,
    "critic_updates": 2,
    "student_learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "precision": "no",
    "compile": False,
    "save_every": 2,
    "log_every": 1,
}

SDXL_SETTINGS: dict[str, Any] = {
    "family": "sdxl",
    "steps": 2,
    "batch": 2,
    "student_grid": {"steps": 4},
    "teacher_grid": {"steps": 10},
    "anchor_k": 2,
    "anchor_target": "x0",
    "norm": "x0",
    "noise_shift": 1.0,
    "noise_range": [0.02, 0.98],
    "guidance_scale": 8.0,
    "critic_updates": 1,
    "student_learning_rate": 1e-3,
    "precision": "no",
    "compile": False,
    "save_every": 2,
    "log_every": 1,
}


def losses_told(run: Path) -> list[dict[str, float]]:
    """The lines of the log that are about updates; others are about sample grids."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "total" in line]
