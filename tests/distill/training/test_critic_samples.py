"""The student's samples that the critic learns from: fresh ones, or earlier ones once more."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from distill.config import DistillConfig
from distill.method import dp_dmd
from distill.training.critic_samples import is_drawing
from distill.training.trainer import Trainer
from tests.distill.tiny_runs import SETTINGS
from worker.families.prompt_embeddings import PromptEmbedding
from worker.testing import tiny_pipelines

TURNS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("critic-samples")
    tiny_pipelines.save(folder / "teacher")
    (folder / "prompts.txt").write_text("\n".join(f"prompt {word}" for word in "abcdefghijklmnopqrst"))
    return folder


@pytest.fixture
def build(folder, tmp_path) -> Callable[..., Trainer]:
    def trainer(**changes) -> Trainer:
        paths = {"teacher": folder / "teacher", "prompts": folder / "prompts.txt", "embeddings": folder / "embeddings"}
        settings = SETTINGS | paths | {"critic_updates": TURNS, "method": "dp-dmd"} | changes
        return Trainer(DistillConfig.model_validate(settings), tmp_path / "run")

    return trainer


def parts(embeddings: PromptEmbedding) -> list[torch.Tensor]:
    return list(embeddings.parts.values())


class Watched:
    """The samples that a trainer's critic losses were computed on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.samples: list[torch.Tensor] = []
        self.states: list[torch.Tensor] = []
        self.levels: list[torch.Tensor] = []
        whole = dp_dmd.critic_loss

        def watched(critic, x, generator, method):
            def ask(state, t):
                self.states.append(state)
                self.levels.append(t)
                return critic(state, t)

            self.samples.append(x)
            return whole(ask, x, generator, method)

        monkeypatch.setattr(dp_dmd, "critic_loss", watched)

    def draws(self) -> list[int]:
        """The first turn that had the same samples, for every turn."""
        return [next(i for i, one in enumerate(self.samples) if torch.equal(one, x)) for x in self.samples]


@pytest.mark.parametrize("turns", [1, 4, 5])
def test_a_cycle_draws_as_often_as_it_shall_and_evenly(turns):
    for rollouts in range(turns + 1):
        drawing = [turn for turn in range(3 * turns) if is_drawing(turn, rollouts, turns)]
        assert len(drawing) == 3 * rollouts
        served = [after - now for now, after in pairwise(drawing)]
        assert not served or max(served) - min(served) <= 1
        assert rollouts == 0 or drawing[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rollouts", "first", "second"),
    [
        (None, [0, 1, 2, 3], [4, 5, 6, 7]),
        (4, [0, 1, 2, 3], [4, 5, 6, 7]),
        (2, [0, 0, 2, 2], [4, 4, 6, 6]),
        (1, [0, 0, 0, 0], [4, 4, 4, 4]),
        (0, [0, 0, 0, 0], [4, 4, 4, 4]),
    ],
)
def test_turns_share_samples_but_neither_noise_nor_noise_levels(build, monkeypatch, rollouts, first, second):
    watched, trainer = Watched(monkeypatch), build(critic_rollouts=rollouts)
    trainer.cycle(0)
    trainer.cycle(1)
    assert watched.draws() == first + second
    for seen in (watched.states, watched.levels):
        assert not any(torch.equal(one, other) for i, one in enumerate(seen) for other in seen[:i])
    assert all(len(set(levels.tolist())) == len(levels) for levels in watched.levels)


@pytest.mark.slow
def test_every_turn_drawing_is_what_happens_without_the_setting(build):
    one, other = build(), build(critic_rollouts=TURNS)
    assert [one.cycle(index) for index in range(2)] == [other.cycle(index) for index in range(2)]
    for name, value in one.critic.weights.state_dict().items():
        assert torch.equal(value, other.critic.weights.state_dict()[name])


def test_with_none_the_critic_learns_from_the_students_own_update(build, monkeypatch):
    """Its sample is asked for under its own prompts."""
    watched, trainer = Watched(monkeypatch), build(critic_rollouts=0)
    made, rollout = [], dp_dmd.rollout
    monkeypatch.setattr(dp_dmd, "rollout", lambda *given: made.append(rollout(*given)) or made[-1])
    asked, draw = [], trainer._draw
    monkeypatch.setattr(trainer, "_draw", lambda: asked.append(draw()) or asked[-1])
    trainer.student_turn()
    ((_, x),), ((_, prompt),) = made, asked
    predict, prompts = trainer.predict, []
    monkeypatch.setattr(trainer, "predict", lambda role, given: prompts.append(given) or predict(role, given))
    trainer.critic_turn(0)
    trainer.critic_turn(1)
    assert len(made) == len(asked) == 1, "no rollout and no prompts but the student's own"
    assert all(torch.equal(sample, x) for sample in watched.samples)
    assert len(prompts) == 2
    assert all(
        torch.equal(given, kept) for asked in prompts for given, kept in zip(parts(asked), parts(prompt), strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 4], ids=["copies", "adapters"])
@pytest.mark.parametrize("rollouts", [0, 1])
@pytest.mark.parametrize("method", ["dp-dmd", "dmd-gan"])
def test_the_critics_loss_teaches_the_student_nothing(build, monkeypatch, rollouts, rank, method):
    watched, trainer = Watched(monkeypatch), build(critic_rollouts=rollouts, lora_rank=rank, method=method)
    trainer.student_turn()
    before = {name: value.clone() for name, value in trainer.student.weights.state_dict().items()}
    critic = {name: value.clone() for name, value in trainer.critic.weights.state_dict().items()}
    for turn in range(2):
        trainer.critic_turn(turn)
    assert not any(x.requires_grad for x in watched.samples)
    assert all(parameter.grad is None for parameter in trainer.student.weights.parameters())
    assert all(torch.equal(value, before[name]) for name, value in trainer.student.weights.state_dict().items())
    assert any(not torch.equal(value, critic[name]) for name, value in trainer.critic.weights.state_dict().items())
