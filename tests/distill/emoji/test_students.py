"""The bundled pair's students: one recipe for both methods, and what is finished is not trained again."""

from pathlib import Path

import pytest

from distill import runs
from distill.config import DistillConfig
from distill.emoji import students
from jobs.settings import BUNDLED_MODEL

TEACHER, PROMPTS = BUNDLED_MODEL.parent / "emoji-teacher", Path("distill/configs/emoji-prompts.txt")


def test_both_methods_are_trained_alike() -> None:
    ours, dmd = (
        DistillConfig.model_validate(students.recipe_of(method, TEACHER, PROMPTS)) for method in students.METHODS
    )
    assert (ours.method, dmd.method) == ("dp-dmd", "dmd")
    differing = {name for name, value in ours.model_dump().items() if dmd.model_dump()[name] != value}
    assert "method" in differing
    assert not differing & {"steps", "batch", "critic_updates", "student_learning_rate", "guidance_scale", "seed"}


def test_a_student_of_this_teacher_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []
    monkeypatch.setattr(runs, "start", lambda recipe, run, out: started.append(out))
    students.make("dp-dmd", TEACHER, PROMPTS, tmp_path / "run", BUNDLED_MODEL)
    assert not started
    students.make("dp-dmd", BUNDLED_MODEL, PROMPTS, tmp_path / "run", BUNDLED_MODEL)
    students.make("dp-dmd", TEACHER, PROMPTS, tmp_path / "run", tmp_path / "none")
    assert started == [BUNDLED_MODEL, tmp_path / "none"], "of another teacher, and of none yet"
