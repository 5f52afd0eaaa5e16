"""`fourstep models check` tells in one line how a folder is served, or the field that is wrong."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fourstep import app
from worker.testing import tiny_pipelines, tiny_sdxl_pipelines


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


def test_a_network_that_lacks_a_weight_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = tiny_pipelines.save(tmp_path / "sd3")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["proj_out.weight"]
    save_file(weights, file, {"format": "pt"})
    result = CliRunner().invoke(app, ["models", "check", str(folder)])
    assert result.exit_code == 1
    assert f"transformer: {folder / 'transformer'} lacks 1 weight: proj_out.weight" in result.stderr


def test_a_folder_without_sampling_json_names_no_method(tmp_path: Path) -> None:
    folder = tiny_pipelines.save(tmp_path / "sd3")
    (folder / "sampling.json").unlink()
    result = CliRunner().invoke(app, ["models", "check", str(folder)])
    assert "  sd3, predicts flow; hash " in result.stdout, result.stderr
