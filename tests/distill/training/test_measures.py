"""The measurement at a save tells a good student from a bad one, and changes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.config import DistillConfig
from distill.training import advice, sample_grid
from distill.training.sample_grid import SampleGrid
from distill.training.trainer import Trainer
from tests.distill.tiny_runs import SETTINGS
from worker.testing import tiny_pipelines


def drawn(seed: int, spread: float = 1.0, width: int = 256) -> torch.Tensor:
    """[16 prompts, 4 seeds, width], each prompt around a centre of its own."""
    centres = torch.randn(16, 1, width, generator=torch.Generator().manual_seed(0))
    return centres + spread * torch.randn(16, 4, width, generator=torch.Generator().manual_seed(seed))


def test_energy_distance_grows_with_whatever_is_wrong() -> None:
    teacher, good = drawn(1), drawn(2)
    near = sample_grid.energy_distance(good, teacher)
    assert abs(near) < 0.02
    bad = {
        "collapsed": drawn(2, 0.3),
        "one picture": good.mean(1, keepdim=True).expand_as(good) + 1e-3 * good,
        "noisy": drawn(2, 2.0),
        "shifted": good + 0.5,
        "other prompts'": good.roll(1, 0),
    }
    for name, samples in bad.items():
        assert sample_grid.energy_distance(samples, teacher) > near + 0.05, name


def test_anchor_r2_of_a_step_that_follows_half_and_none_of_the_noise() -> None:
    anchors = drawn(1)
    mean = anchors.mean(1, keepdim=True)
    assert sample_grid.anchor_r2(anchors, anchors) == pytest.approx(1)
    assert sample_grid.anchor_r2(mean.expand_as(anchors) + 3, anchors) == pytest.approx(0, abs=1e-6)
    assert sample_grid.anchor_r2(mean + 0.5 * (anchors - mean), anchors) == pytest.approx(0.75)


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    (tmp_path / "prompts.txt").write_text("a\nb\nc\n")
    paths = {"teacher": tiny_pipelines.save(tmp_path / "teacher"), "prompts": tmp_path / "prompts.txt"}
    return Trainer(DistillConfig.model_validate(SETTINGS | paths), tmp_path / "run")


@pytest.mark.slow
def test_the_ratio_of_the_gradients_is_that_of_both_losses_and_leaves_no_trace(trainer: Trainer) -> None:
    trainer.cycle(0)
    before = trainer.stream.generator.get_state()
    ratio = trainer.measures.gradient_ratio(trainer.hparams, 7)
    twice = trainer.measures.gradient_ratio(replace(trainer.hparams, lambda_=2 * trainer.hparams.lambda_), 7)
    assert ratio > 0
    assert twice == pytest.approx(2 * ratio, rel=1e-4)
    assert torch.equal(trainer.stream.generator.get_state(), before)
    assert all(parameter.grad is None for parameter in trainer.student.weights.parameters())


@pytest.mark.slow
def test_the_teacher_is_its_own_best_student_and_is_sampled_once(trainer: Trainer) -> None:
    told = trainer.measures.sample(1)
    assert told.keys() >= {"latent_diversity", "diversity_kept", "energy_distance", "anchor_r2", "gradient_ratio"}
    theirs = trainer.measures.teacher.latents
    assert (trainer.folder / "grid-teacher.png").is_file()
    again = Trainer(trainer.config, trainer.folder)
    again.teacher_sample = None  # type: ignore[method-assign, assignment]
    assert torch.equal(again.measures.teacher.latents, theirs)
    of_prompts = again.measures.grid.by_prompt(theirs)
    assert sample_grid.energy_distance(of_prompts, of_prompts) == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
def test_rows_are_shared_among_processes_and_gathered_in_order() -> None:
    """Each of two processes follows three of five rows, one of them twice."""

    class Process:
        num_processes, device = 2, torch.device("cpu")

        def __init__(self, index: int) -> None:
            self.process_index = index

        def gather(self, own: torch.Tensor) -> torch.Tensor:
            return own

    def follow(rows: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return noise + 100 * rows.view(-1, 1, 1, 1)

    shares = []
    for index in (0, 1):
        grid = SampleGrid(9, (1, 1, 1), 2, Process(index))  # type: ignore[arg-type]
        grid.prompts, grid.noise = torch.arange(5), torch.arange(5.0).view(5, 1, 1, 1)
        shares.append(grid.solve(follow).flatten().tolist())
    assert shares == [[0, 101, 202], [303, 404, 404]]


SOUND = {"anchor_r2": 0.5, "diversity_kept": 0.9, "gradient_ratio": 0.2}


@pytest.mark.parametrize(
    ("changes", "done", "words"),
    [
        ({}, 50, []),
        ({"anchor_r2": 0.08}, 50, ["does not learn its anchor: anchor_r2 is 0.08"]),
        ({"anchor_r2": 0.08}, 10, []),
        ({"diversity_kept": 0.4}, 50, ["make much the same picture"]),
        ({"gradient_ratio": 28.0}, 10, ["distribution matching is hardly heard beside the diversity loss"]),
        ({"gradient_ratio": 0.001}, 50, ["the diversity loss is hardly heard"]),
    ],
)
def test_a_run_that_goes_wrong_is_told_so_in_words(tmp_path: Path, changes: dict, done: int, words: list[str]) -> None:
    paths = {"teacher": tmp_path, "prompts": tmp_path}
    config = DistillConfig.model_validate(SETTINGS | paths)
    told = list(advice.warnings(config, done, SOUND | changes))
    assert len(told) == len(words)
    for sentence, word in zip(told, words, strict=True):
        assert word in sentence
