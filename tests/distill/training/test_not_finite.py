"""Numbers that are infinite or none end a run, and the checkpoint before them is kept."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from distill import runs
from distill.commands import app
from distill.method import losses
from distill.training import checkpoints, training_loop
from distill.training.checkpoints import NotFiniteError
from tests.distill.tiny_runs import SETTINGS
from worker.testing import tiny_pipelines


@pytest.mark.slow
@pytest.mark.parametrize("of", ["critic_loss", "dmd_loss"])
def test_a_run_that_comes_to_nan_ends_in_one_line_and_keeps_its_last_finite_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    teacher = tiny_pipelines.save(tmp_path / "teacher")
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    settings = SETTINGS | {"teacher": str(teacher), "prompts": str(tmp_path / "prompts.txt"), "save_every": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | {"steps": 2}))
    run = tmp_path / "run"
    runs.start(tmp_path / "config.yaml", run, None)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("steps: 2", "steps: 6", 1))
    with monkeypatch.context() as patch:
        patch.setattr(losses, of, lambda first, *rest: (first * torch.nan).mean())
        result = CliRunner().invoke(app, ["resume", "--run", str(run)])
    assert result.exit_code == 2
    assert "step 3: " in result.stderr
    assert "is nan" in result.stderr
    assert "the last checkpoint, after step 2, is kept" in result.stderr
    assert checkpoints.steps_of(run) == [1, 2]
    kept = load_file(run / "checkpoints" / "step-000002" / "average.safetensors")
    assert all(bool(value.isfinite().all()) for value in kept.values())
    runs.resume(run, None)
    assert checkpoints.steps_of(run)[-1] == 6


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    checkpoints.save(tmp_path, {"model": model}, 1)
    with torch.no_grad():
        model.weight[0, 0] = torch.inf
    with pytest.raises(NotFiniteError, match="checkpoint after step 2: model is not finite"):
        checkpoints.save(tmp_path, {"model": model}, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]


def test_any_training_stops_at_a_metric_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match=r"step 3: loss is inf; training stops, and .* after step 2, is kept"):
        training_loop.run(
            tmp_path, {}, lambda index: {"loss": float("inf") if index == 2 else 1.0}, 4, save_every=2, log_every=1
        )
