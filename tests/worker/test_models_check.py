"""`fourstep models check` tells in one line how a folder is served, or the field that is wrong."""

from pathlib import Path

from typer.testing import CliRunner

from fourstep import app
from worker.testing import tiny_sdxl_pipelines


def test_a_servable_folder_says_what_it_is_served_on(tiny_folder: Path) -> None:
    result = CliRunner().invoke(app, ["models", "check", str(tiny_folder)])
    assert result.exit_code == 0, result.stderr
    assert "tiny-student" in result.stdout
    assert "sd3, dp-dmd, predicts flow" in result.stdout
    assert "4 steps (ode), 4 evaluations a picture; 64×64, 64×32" in result.stdout
    assert "1, 0.75, 0.5, 0.25, 0" in result.stdout


def test_a_folder_that_does_not_fit_says_which_field(tmp_path: Path) -> None:
    folder = tiny_sdxl_pipelines.save(tmp_path / "sdxl")
    tiny_sdxl_pipelines.contract(prediction="v").save(folder)
    result = CliRunner().invoke(app, ["models", "check", str(folder)])
    assert result.exit_code == 1
    assert "cannot be served: prediction: v" in result.stderr
    assert "Traceback" not in result.stderr
