"""The script that docs/distillation.md shows, on one method; the whole of it takes minutes."""

from pathlib import Path

import pytest

from docs.examples import every_method


@pytest.mark.slow
@pytest.mark.parametrize("family", every_method.TEACHERS)
def test_cached_trained_exported_and_served_in_both_role_modes(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every_method.main(tmp_path, steps=1, families=[family], methods=["dmd-perceptual"])
    shown = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "weights moved by" in line]
    students = ["dmd-perceptual-copies/student", "dmd-perceptual-lora/student", "dmd-perceptual-lora/student-lora"]
    assert shown == [f"{family}/{name}" for name in students]
    assert all((tmp_path / family / name).with_suffix(".png").is_file() for name in students)
