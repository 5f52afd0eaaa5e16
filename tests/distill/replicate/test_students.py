"""Training all seeds at once, one run after the other, and going on where it was left."""

import copy
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from distill.commands import app
from distill.replicate import experiments as table
from distill.replicate import measures, mixture_setting
from distill.replicate.mixture import Mixture
from distill.replicate.mixture_run import Run, through
from distill.replicate.seeded_attention import SeededAttention, clip_each_seed
from distill.replicate.students import Distillation, Size, started

SMALL = Size(seeds=3, width=16, batch=8, samples=8)
WORLD = Mixture.drawn(16)


@pytest.fixture(scope="module")
def start() -> SeededAttention:
    return started(WORLD, SMALL, 0)


def of_one_seed(network: SeededAttention, seed: int) -> SeededAttention:
    """Return that seed's copy alone."""
    alone = SeededAttention(WORLD, 1, SMALL.width)
    weights = network.state_dict()
    alone.load_state_dict({k: v if k == "waves" else v[seed : seed + 1] for k, v in weights.items()})
    return alone


class Drawn:
    """Every random draw of a run by seed, so that a seed can be given its own again when it is trained alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seeds: int) -> None:
        self.seeds, self.kept, self.only = seeds, [], None
        for name in ("rand", "randn", "randint"):
            monkeypatch.setattr(torch, name, self.instead_of(getattr(torch, name)))

    def instead_of(self, draw):
        def drawn(*arguments, **named):
            if self.only is None:
                self.kept.append(draw(*arguments, **named))
                return self.kept[-1]
            # A scalar is common to all seeds; rows are grouped by seed.
            value = self.replayed.pop(0)
            return value if value.dim() == 0 else value.unflatten(0, (self.seeds, -1))[self.only]

        return drawn

    def replay(self, seed: int) -> None:
        self.only, self.replayed = seed, list(self.kept)


@pytest.mark.parametrize("method", ["dp-dmd", "dmd", "step1-regression"])
def test_seeds_trained_at_once_are_seeds_trained_alone(
    start: SeededAttention, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run("cell", method=method, dimension=16, updates=3)  # type: ignore[arg-type]
    together = Distillation(WORLD, run, SMALL, start)
    separate = [Distillation(WORLD, run, replace(SMALL, seeds=1), of_one_seed(start, seed)) for seed in range(3)]
    drawn = Drawn(monkeypatch, SMALL.seeds)
    list(together.train())
    for seed, alone in enumerate(separate):
        drawn.replay(seed)
        list(alone.train())
        ours, its = alone.average.module.state_dict(), together.average.module.state_dict()
        for name in ours.keys() - {"waves"}:
            torch.testing.assert_close(ours[name][0], its[name][seed], atol=2e-5, rtol=1e-4)
        assert not torch.equal(ours["keys"][0], start.state_dict()["keys"][seed])
        assert not drawn.replayed


def test_gradients_are_clipped_for_each_seed_by_itself() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2, 1, 4))]
    weights[0].grad, weights[1].grad = torch.ones(2, 3), torch.ones(2, 1, 4)
    weights[0].grad[1] *= 100
    before = weights[0].grad[1].clone()
    clip_each_seed(weights, 5.0)
    assert torch.equal(weights[0].grad[0], torch.ones(3))
    factor = 5.0 / (before.square().sum() + 4).sqrt()
    torch.testing.assert_close(weights[0].grad[1], before * factor)
    torch.testing.assert_close(weights[1].grad[1], torch.ones(1, 4) * factor)


def test_students_start_as_the_unguided_teacher() -> None:
    world = Mixture.drawn(256)
    network = started(world, replace(SMALL, width=32), 0)
    labels = measures.labels(4).repeat(SMALL.seeds)
    generator = torch.Generator().manual_seed(5)
    x, noise = world.sample(labels, generator), torch.randn(len(labels), 256, generator=generator)
    for level in (0.3, 0.6, 1.0):
        t = torch.full((len(labels),), level)
        state = (1 - level) * x + level * noise
        with torch.no_grad():
            ours, its = (of.conditional(labels)(state, t) for of in (network, world))
        # Keys and values differ from the means by noise of standard deviation 0.05.
        assert (ours - its).square().mean() < 0.02 * its.square().mean()


def test_a_lambda_range_is_walked_and_a_k_range_drawn() -> None:
    run = Run("cell", k=(2, 4), lambda_=(0.5, 0.1), updates=5)
    generator = torch.Generator().manual_seed(0)
    methods = [run.at(update, generator) for update in range(5)]
    assert [method.lambda_ for method in methods] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert {run.at(0, generator).anchor_k for _ in range(50)} == {2, 3, 4}


def test_a_grid_can_visit_the_students_first_level() -> None:
    grid = through(0.75, before=8, after=22)
    assert (grid[0], grid[8], grid[-1], len(grid)) == (1.0, 0.75, 0.0, 31)
    assert all(after < before for before, after in itertools.pairwise(grid))


def test_a_world_is_not_drawn_like_the_noise_it_is_measured_with() -> None:
    with pytest.raises(ValueError, match="noise"):
        Run("cell", seed=1)


def test_every_cell_has_a_name_of_its_own_and_its_settings_hold() -> None:
    runs = table.every()
    assert len({run.name for run in runs}) == len(runs)
    settings = [json.dumps({k: v for k, v in run.settings().items() if k != "name"}) for run in runs]
    assert len(set(settings)) == len(settings)
    dmd = next(run for run in runs if run.name == "dmd")
    assert dmd.lambda_ == (0.0, 0.0)
    assert not dmd.detach


@pytest.mark.parametrize("change", [{"anchor_guidance": 1.0}, {"critic_rollouts": 1}, {"anchor_target": "x0"}])
def test_what_goes_past_the_paper_changes_the_student(start: SeededAttention, change: dict) -> None:
    run = Run("cell", dimension=16, updates=2)
    trained = [Distillation(WORLD, one, SMALL, copy.deepcopy(start)) for one in (run, replace(run, **change))]
    for one in trained:
        list(one.train())
    first, second = (one.average.module.inner.weight for one in trained)
    assert not torch.equal(first, second)


def test_finished_runs_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [Run(name, dimension=16, updates=1) for name in ("one", "two")]
    mixture_setting.train_and_measure(runs[:1], SMALL, tmp_path)
    kept = (tmp_path / "one.json").read_bytes()
    trained: list[str] = []
    real = mixture_setting.Distillation
    monkeypatch.setattr(
        mixture_setting,
        "Distillation",
        lambda world, run, size, start: trained.append(run.name) or real(world, run, size, start),
    )
    mixture_setting.train_and_measure(runs, SMALL, tmp_path)
    assert trained == ["two"]
    assert (tmp_path / "one.json").read_bytes() == kept
    with pytest.raises(ValueError, match="updates"):
        mixture_setting.train_and_measure([replace(runs[0], updates=2)], SMALL, tmp_path)


def test_a_run_killed_in_the_middle_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self):
        yield 1
        raise KeyboardInterrupt

    monkeypatch.setattr(mixture_setting.Distillation, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        mixture_setting.train_and_measure([Run("one", dimension=16, updates=2)], SMALL, tmp_path)
    assert not list(tmp_path.glob("one*"))


def test_the_same_seed_gives_the_same_result(tmp_path: Path) -> None:
    run = Run("one", dimension=16, updates=2)
    for folder in ("a", "b"):
        mixture_setting.train_and_measure([run], SMALL, tmp_path / folder)
    one, other = (json.loads((tmp_path / folder / "one.json").read_text()) for folder in ("a", "b"))
    assert one["curve"] == other["curve"]
    assert one["teacher"] == other["teacher"]


@pytest.mark.slow
def test_the_quick_command_writes_runs_and_gates(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["replicate", "--quick", "--out", str(tmp_path)])
    assert answer.exit_code == 0, answer.output
    gates = json.loads((tmp_path / "gates.json").read_text())
    assert {"dmd.json", "dp-dmd.json", "dmd-gan.json"} <= {path.name for path in tmp_path.glob("*.json")}
    assert all({"name", "asked", "found", "passed"} <= gate.keys() for part in gates.values() for gate in part)
    assert "DMD loses diversity" in answer.output
