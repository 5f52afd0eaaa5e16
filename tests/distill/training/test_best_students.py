"""The students nearest to their teacher are kept, and can be exported."""

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from distill import runs
from distill.commands import app
from distill.training import best_students, checkpoints
from tests.distill.tiny_runs import SETTINGS
from worker.testing import tiny_pipelines


def test_only_the_nearest_are_kept(tmp_path: Path) -> None:
    for step, distance in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 4.0)):
        best_students.keep(tmp_path, nn.Linear(1, 1), step, {"energy_distance": distance}, 2)
    assert best_students.ranked(tmp_path) == [20, 30]
    assert sorted(path.name for path in (tmp_path / "students").iterdir()) == ["step-000020", "step-000030"]


def test_a_resumed_run_that_comes_to_a_student_again_replaces_it(tmp_path: Path) -> None:
    for distance in (3.0, 2.0):
        best_students.keep(tmp_path, nn.Linear(1, 1), 10, {"energy_distance": distance}, 1)
    best_students.keep(tmp_path, nn.Linear(1, 1), 20, {"energy_distance": 2.5}, 1)
    assert best_students.ranked(tmp_path) == [10]


@pytest.mark.slow
def test_the_best_and_any_kept_student_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny_pipelines.save(tmp_path / "teacher")
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    paths = {"teacher": str(teacher), "prompts": str(tmp_path / "prompts.txt")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS | paths | {"save_every": 1, "keep_students": 2}))
    run, ranked = tmp_path / "run", best_students.ranked
    distances = iter([2.0, 1.0, 4.0, 3.0])
    keep = best_students.keep
    monkeypatch.setattr(
        best_students, "keep",
        lambda run, average, done, measured, count: keep(
            run, average, done, measured | {"energy_distance": next(distances)}, count
        ),
    )  # fmt: skip
    runs.start(tmp_path / "config.yaml", run, None)
    assert (ranked(run), checkpoints.steps_of(run)) == ([2, 1], [3, 4])

    def exported(name: str) -> dict[str, torch.Tensor]:
        out = tmp_path / f"student-{name}"
        arguments = ["export", "--run", str(run), "--out", str(out), "--dtype", "float32", "--checkpoint", name]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return StableDiffusion3Pipeline.from_pretrained(out).transformer.state_dict()

    for name, folder in (
        ("best", "students/step-000002"),
        ("1", "students/step-000001"),
        ("3", "checkpoints/step-000003"),
    ):
        kept = load_file(run / folder / "average.safetensors")
        assert {str(value.double().sum().item()) for value in exported(name).values()} <= {
            str(value.double().sum().item()) for value in kept.values()
        }
    refused = CliRunner().invoke(app, ["export", "--run", str(run), "--out", "x", "--checkpoint", "9"])
    assert refused.exit_code == 2
    assert "9 is none of last, best, 1, 2, 3, 4" in refused.stderr
