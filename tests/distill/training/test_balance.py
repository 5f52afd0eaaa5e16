"""A warm start, λ by the ratio of the gradients, and noise levels by term."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from distill import config as configuration
from distill import runs
from distill.config import DistillConfig
from distill.method import dp_dmd
from distill.training import checkpoints
from distill.training.trainer import Trainer
from tests.distill.tiny_runs import SETTINGS, losses_told
from worker.testing import tiny_pipelines


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    teacher = tiny_pipelines.save(tmp_path / "teacher")
    (tmp_path / "prompts.txt").write_text("a\nb\nc\n")

    def write(**changes: object) -> Path:
        paths = {"teacher": str(teacher), "prompts": str(tmp_path / "prompts.txt")}
        path = tmp_path / f"config-{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(yaml.safe_dump(SETTINGS | paths | changes))
        return path

    return write


@pytest.mark.slow
@pytest.mark.parametrize(("enough", "warm"), [(1.0, 3), (0.0, 0)])
def test_a_warm_start_is_regression_alone_until_the_anchor_is_learnt(
    write_config, tmp_path: Path, enough: float, warm: int
) -> None:
    config = write_config(warm_start_updates=3, warm_start_r2=enough, critic_warmup=1)
    runs.start(config, tmp_path / "run", tmp_path / "student")
    told = losses_told(tmp_path / "run")
    assert ["dmd" in line for line in told] == [index >= warm for index in range(4)]
    assert ["critic" in line for line in told] == [index >= warm for index in range(4)]
    assert all(line["diversity"] > 0 for line in told)


@pytest.mark.slow
def test_lambda_moves_until_the_gradients_have_the_ratio_asked_for(write_config, tmp_path: Path) -> None:
    still = {"student_learning_rate": 1e-8, "critic_learning_rate": 1e-8, "batch": 8, "critic_updates": 1}
    runs.start(write_config(lambda_ratio=0.5, steps=12, save_every=12, **still), tmp_path / "run", None)
    lines = [yaml.safe_load(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    ratios = [line["gradient_ratio"] for line in lines if "gradient_ratio" in line]
    lambdas = [line["lambda"] for line in lines if "lambda" in line]
    assert len(set(lambdas)) == 12
    assert 0.25 < ratios[-1] < 1.0
    before = Trainer(configuration.load(write_config(**still)), tmp_path / "other")
    assert not 0.25 < before.measures.gradient_ratio(before.hparams, 12) < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"lambda_ratio": 0.5}, {"warm_start_updates": 3, "warm_start_r2": 1.0}])
def test_a_balanced_run_goes_on_as_if_it_had_never_stopped(write_config, tmp_path: Path, changes: dict) -> None:
    runs.start(write_config(log_every=3, save_every=1, **changes), tmp_path / "whole", None)
    runs.start(write_config(log_every=3, save_every=1, steps=2, **changes), tmp_path / "halves", None)
    stopped = tmp_path / "halves" / "config.yaml"
    stopped.write_text(stopped.read_text().replace("steps: 2", "steps: 4", 1))
    runs.resume(tmp_path / "halves", None)

    def contents(run: Path) -> dict[str, bytes]:
        last = run / "checkpoints" / f"step-{checkpoints.steps_of(run)[-1]:06}"
        return {path.name: path.read_bytes() for path in last.iterdir()}

    assert contents(tmp_path / "whole") == contents(tmp_path / "halves")


@pytest.mark.slow
def test_each_term_has_its_own_noise_levels(write_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"critic_noise_range": [0.1, 0.2], "first_noise_range": [0.7, 0.9], "first_noise_updates": 1}
    config = yaml.safe_load(write_config(noise_range=[0.4, 0.5], noise_shift=1.0, **settings).read_text())
    trainer = Trainer(DistillConfig.model_validate(config), tmp_path / "run")
    draw_noise, seen = dp_dmd.draw_noise, []

    def watched(x: torch.Tensor, *rest):
        t, eps = draw_noise(x, *rest)
        seen.append((round(float(t.min()), 3), round(float(t.max()), 3)))
        return t, eps

    monkeypatch.setattr(dp_dmd, "draw_noise", watched)
    for index in (0, 1):
        trainer.cycle(index)
    ranges = [(0.1, 0.2), (0.1, 0.2), (0.7, 0.9), (0.1, 0.2), (0.1, 0.2), (0.4, 0.5)]
    assert len(seen) == len(ranges)
    for (least, most), (low, high) in zip(seen, ranges, strict=True):
        assert low <= least <= most <= high


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"first_noise_updates": 5}, "first_noise_range"),
        ({"critic_noise_range": [0.5, 0.5]}, "critic_noise_range: must rise"),
        ({"warm_start_updates": 5, "lambda": 0.0}, "warm_start_updates: needs both losses"),
        ({"lambda_ratio": 0.2, "method": "step1-regression", "critic_updates": 0}, "lambda_ratio: needs both losses"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DistillConfig.model_validate(SETTINGS | {"teacher": tmp_path, "prompts": tmp_path} | changes)
