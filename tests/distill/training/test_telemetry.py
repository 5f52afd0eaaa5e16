"""The log and TensorBoard agree, and each number is the quantity that it is named for."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from distill import config as configuration
from distill.config import DistillConfig
from distill.evaluation.metrics import pairwise_diversity
from distill.method import dp_dmd
from distill.training import sample_grid, training_loop
from distill.training.sample_grid import GRID_PROMPTS, GRID_SAMPLES
from distill.training.trainer import Trainer
from jobs.testing.waiting import block_until
from tests.distill.method.per_step_student import METHOD
from tests.distill.tiny_runs import SETTINGS
from worker.testing import tiny_pipelines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard")).Reload()


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_without_a_terminal_the_pace_is_printed_and_samples_are_drawn_in_their_own_rhythm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[int] = []
    options = {"log_every": 2, "save_every": 1, "sample_every": 4, "samples": 3}
    training_loop.run(tmp_path, {}, lambda index: {"loss": 1.5}, 6, sample=drawn.append, **options)
    assert drawn == [4, 6]
    printed = [line for line in capsys.readouterr().out.splitlines() if "samples/s" in line]
    assert [line.split()[2] for line in printed] == ["2/6", "4/6", "6/6"]
    assert all(" loss 1.5, " in line and " ends " in line for line in printed)


def test_log_and_tensorboard_tell_the_same_means_and_show_the_grid(tmp_path: Path) -> None:
    def sample(done: int) -> dict[str, float]:
        Image.fromarray(np.full((4, 6, 3), done, dtype=np.uint8)).save(tmp_path / f"grid-{done:06}.png")
        return {"spread": done / 8}

    training_loop.run(tmp_path, {}, lambda index: {"loss": float(index)}, 4, log_every=2, save_every=4, sample=sample)
    assert [(line["step"], line.get("loss"), line.get("spread")) for line in lines(tmp_path)] == [
        (2, 0.5, None),
        (4, 2.5, None),
        (4, None, 0.5),
    ]
    told = events(tmp_path)
    assert [(event.step, event.value) for event in told.Scalars("loss")] == [(2, 0.5), (4, 2.5)]
    assert [(event.step, event.value) for event in told.Scalars("spread")] == [(4, 0.5)]
    (shown,) = told.Images("grid")
    assert (shown.step, shown.height, shown.width) == (4, 4, 6)


def test_what_a_killed_run_told_of_steps_done_again_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TensorBoard reads files in the order of their names: second, host, process, number in the process. These four runs
    # share second and process, and as text 10 comes before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))

    def step(value: float, dies_at: int):
        def run(index: int) -> dict[str, float]:
            if index == dies_at:
                raise RuntimeError("killed")
            return {"loss": value}

        return run

    with pytest.raises(RuntimeError):
        training_loop.run(tmp_path, {}, step(1.0, 4), 4 + 1, log_every=1, save_every=2)
    training_loop.run(tmp_path, {}, step(2.0, -1), 5, log_every=1, save_every=2)
    assert [line["loss"] for line in lines(tmp_path)] == [1, 1, 1, 1, 2]
    with pytest.raises(RuntimeError):
        training_loop.run(tmp_path, {}, step(3.0, 7), 8, log_every=1, save_every=8)
    training_loop.run(tmp_path, {}, step(4.0, -1), 8, log_every=1, save_every=8)
    expected = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 4), (7, 4), (8, 4)]
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == expected
    assert [(event.step, event.value) for event in events(tmp_path).Scalars("loss")] == expected


def test_gap_cosine_and_magnitudes_of_known_scores() -> None:
    """Teacher answers (3, 4) everywhere, critic (4, 3): cosine .96, gap √2 / 5, magnitudes √12.5."""
    teacher, critic = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    told = dp_dmd.student_losses(
        lambda state, t: torch.zeros_like(state),
        lambda state, t: critic.expand_as(state),
        lambda state, t: teacher.expand_as(state),
        torch.randn(5, 2),
        torch.Generator().manual_seed(0),
        METHOD,
    ).parts
    assert told["cosine"].item() == pytest.approx(0.96)
    assert told["relative_gap"].item() == pytest.approx(2**0.5 / 5)
    assert told["teacher_rms"].item() == told["critic_rms"].item() == pytest.approx(12.5**0.5)


def test_the_logs_of_the_docs_page_are_of_a_healthy_and_a_collapsed_run() -> None:
    """The claims of docs/run-health.md."""
    docs = Path(__file__).parents[3] / "docs" / "data"
    ends = {}
    for name, method in (("healthy", "dp-dmd"), ("collapsed", "dmd")):
        config = configuration.load(docs / name / "settings.yaml")
        assert config.method_name == method
        told = lines(docs / name)
        assert told[-1]["step"] == config.steps
        ends[name] = {metric: value for line in told[-8:] for metric, value in line.items()}
        assert ends[name]["dmd"] == pytest.approx(0.2, abs=0.05)
    healthy, collapsed = ends["healthy"], ends["collapsed"]
    assert collapsed["latent_diversity"] < healthy["latent_diversity"] / 4
    assert collapsed["critic"] > 20 * healthy["critic"]
    assert collapsed["sample_std"] > 2 * healthy["sample_std"]


@pytest.mark.slow
def test_a_cycle_tells_of_both_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("GRID_PROMPTS", GRID_PROMPTS), ("GRID_SAMPLES", GRID_SAMPLES)):
        monkeypatch.setattr(sample_grid, name, count)  # the real grid
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {word}" for word in "abcdefghijklmnopqrst"))
    teacher = tiny_pipelines.save(tmp_path / "teacher")
    settings = {**SETTINGS, "teacher": teacher, "prompts": tmp_path / "prompts.txt", "max_grad_norm": 1e-3}
    trainer = Trainer(DistillConfig.model_validate(settings), tmp_path / "run")
    told = trainer.cycle(0)
    assert told.keys() == {
        "critic", "critic_grad_norm", "total", "dmd", "diversity", "grad_norm",
        "cosine", "relative_gap", "teacher_rms", "critic_rms", "sample_std",
    }  # fmt: skip
    assert told["total"] == pytest.approx(told["dmd"] + 0.05 * told["diversity"], rel=1e-4)
    assert told["grad_norm"] > 1e-3, "the norm before clipping"
    spread = trainer.measures.sample(1)["latent_diversity"]
    assert 0 < spread < 2
    torch.testing.assert_close(spread, grid_diversity(trainer), rtol=1e-4, atol=1e-6)


def grid_diversity(trainer: Trainer) -> float:
    """Return the diversity of the same latents, prompt by prompt."""
    noise = torch.randn(GRID_SAMPLES * GRID_PROMPTS, *trainer.latent_shape, generator=torch.Generator().manual_seed(0))
    rows = torch.linspace(0, len(trainer.embeddings.prompts) - 2, GRID_PROMPTS).long()
    each = []
    for place, row in enumerate(rows):
        prompt = trainer.embeddings.rows(row.repeat(GRID_SAMPLES))
        student = trainer.predict(trainer.student, prompt)
        with torch.no_grad(), trainer.student.holding(trainer.average.module):
            latents = trainer.schedule.solve(student, noise[place::GRID_PROMPTS], trainer.hparams.student_grid)
        each.append(pairwise_diversity(latents.flatten(1)[None]))
    return torch.cat(each).mean().item()


def test_a_narrow_terminal_shows_the_count_beside_the_metrics_and_what_is_done_after_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    for name, value in {"COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", terminal)
    metrics = {f"metric_{number}": 1.5 for number in range(9)}

    def sample(done: int) -> None:
        block_until(lambda: "drawing samples" in terminal.getvalue(), "the terminal does not say so")

    training_loop.run(tmp_path / "run", {}, lambda index: metrics, 3, log_every=1, save_every=3, sample=sample)
    last = terminal.getvalue().rpartition("3/3")
    assert "metric_0" in last[2]
