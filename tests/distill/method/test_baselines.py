"""The loss terms of the baselines: their minima, and the networks that their gradients reach."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from distill.config import DistillConfig
from distill.method import dp_dmd, perceptual
from distill.method.adversary import Adversary, Head, discriminator_loss, generator_loss
from distill.training.trainer import Trainer
from tests.distill.method.per_step_student import METHOD, PerStepStudent, student_losses
from tests.distill.tiny_runs import SETTINGS
from worker.sampling.noise_schedule import shifted_grid
from worker.testing import tiny_pipelines


def test_perceptual_distance_is_zero_for_equals_and_pulls_images_only():
    network = perceptual.feature_network("tests.distill.feature_network:two_maps")
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    other = torch.randn(2, 3, 8, 8, requires_grad=True)
    assert perceptual.distance(network, images, images).item() == 0.0
    loss = perceptual.distance(network, images, other)
    loss.backward()
    assert loss > 0
    assert images.grad.abs().sum() > 0
    assert other.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_emoji_encoder_is_a_perceptual_network():
    network = perceptual.feature_network("distill.emoji.encoder:perceptual_network")
    generator = torch.Generator().manual_seed(0)
    images, others = (torch.rand(2, 3, 8, 8, generator=generator).mul(2).sub(1) for _ in range(2))
    images, others = (nn.functional.interpolate(each, scale_factor=8) for each in (images, others))
    assert [tuple(one.shape[1:]) for one in network(images)] == [
        (32, 32, 32), (64, 16, 16), (96, 8, 8), (128, 4, 4), (128, 2, 2),
    ]  # fmt: skip
    noisy = (images + 0.02 * torch.randn(images.shape, generator=generator)).requires_grad_()
    near = perceptual.distance(network, noisy, images)
    near.backward()
    assert 0 < near < perceptual.distance(network, others, images) / 3
    assert noisy.grad.abs().sum() > 0


def test_a_feature_network_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"perceptual\.network: tests\.nowhere:network"):
        perceptual.feature_network("tests.nowhere:network")


@pytest.mark.parametrize("kind", ["softplus", "hinge"])
def test_discriminator_and_generator_want_opposite_logits(kind):
    high, low = torch.full((3,), 2.0), torch.full((3,), -2.0)
    assert discriminator_loss(high, low, kind) < discriminator_loss(low, high, kind)
    assert generator_loss(high, kind) < generator_loss(low, kind)


class Critic(nn.Module):
    """Features of 6 places, width 5, then an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.answer = nn.Linear(1, 5), nn.Linear(5, 1)

    def forward(self, state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.answer(self.features(state[..., None])).squeeze(-1)


@pytest.fixture
def critic() -> Critic:
    torch.manual_seed(1)
    return Critic()


@pytest.mark.parametrize("kind", ["softplus", "hinge"])
def test_discriminator_learns_to_tell_samples_apart(critic, kind):
    adversary = Adversary(critic.features, Head(5), kind, r1=0.0, r1_noise=0.01)
    parameters = [*critic.parameters(), *adversary.head.parameters()]
    optimizer = torch.optim.Adam([p for p in parameters if p is not critic.answer.weight], 1e-2)
    generator = torch.Generator().manual_seed(0)
    fake, real = torch.randn(64, 6) * 0.1, torch.randn(64, 6) * 0.1 + 2
    first = adversary.discriminator(critic, fake, real, generator, METHOD).item()
    for _ in range(100):
        optimizer.zero_grad()
        adversary.discriminator(critic, fake, real, generator, METHOD).backward()
        optimizer.step()
    assert adversary.discriminator(critic, fake, real, generator, METHOD).item() < first - 0.3
    towards_real, towards_fake = (adversary.generator(critic, x, generator, METHOD) for x in (real, fake))
    assert towards_real < towards_fake


def test_r1_is_the_squared_slope_of_the_logits_at_real_samples():
    """The squared gradient, for logits that are linear in the state."""
    identity, weights = nn.Identity(), torch.randn(6, dtype=torch.float64)

    class Linear(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features @ weights

    samples = torch.zeros(20_000, 6, dtype=torch.float64)
    losses = []
    for r1 in (0.0, 1.0):
        adversary = Adversary(identity, Linear(), "softplus", r1, 0.01)
        generator = torch.Generator().manual_seed(0)
        loss = adversary.discriminator(lambda state, t: identity(state), samples, samples, generator, METHOD)
        losses.append(loss.item())
    assert losses[1] - losses[0] == pytest.approx(weights.square().sum().item(), rel=0.05)


def test_a_term_joins_the_total_by_its_weight_and_follows_the_samples_routing():
    torch.manual_seed(0)
    student = PerStepStudent(shifted_grid(4, 3.0))
    terms: dict[str, dp_dmd.Term] = {"adversarial": (0.5, lambda x: x.square().mean())}
    result = student_losses(student, METHOD, terms=terms)
    parts = result.parts
    expected = parts["dmd"] + 0.05 * parts["diversity"] + 0.5 * parts["adversarial"]
    torch.testing.assert_close(result.total, expected)
    parts["adversarial"].backward()
    assert [gradient > 0 for gradient in student.gradients()] == [False, True, True, True]


FIRST, LATER, ALL = [True, False, False, False], [False, True, True, True], [True] * 4
ROUTES = {
    "dp-dmd": {"diversity": FIRST, "dmd": LATER},
    "dp-dmd-nodetach": {"diversity": FIRST, "dmd": ALL},
    "dmd": {"dmd": ALL},
    "dmd-perceptual": {"dmd": ALL, "perceptual": ALL},
    "dmd-gan": {"dmd": ALL, "adversarial": ALL},
    "step1-regression": {"diversity": FIRST},
}
"""Which of the student's four steps each loss of a method may teach."""


@pytest.mark.parametrize("method", ROUTES)
def test_every_method_by_its_name_teaches_only_the_steps_it_may(method):
    settings = {name: value for name, value in SETTINGS.items() if name != "critic_updates"}
    if method == "dmd-perceptual":
        settings["perceptual"] = {"network": "tests.distill.feature_network:two_maps"}
    config = DistillConfig.model_validate(settings | {"teacher": "teacher", "prompts": "prompts", "method": method})
    terms: dict[str, dp_dmd.Term] = {
        name: (0.5, lambda x: x.square().mean()) for name in ROUTES[method] if name in ("perceptual", "adversarial")
    }
    torch.manual_seed(0)
    student = PerStepStudent(config.hyperparameters().student_grid)
    parts = student_losses(student, config.hyperparameters(), terms=terms).parts
    differentiable = {name for name, part in parts.items() if part.requires_grad}
    assert differentiable == ROUTES[method].keys()
    for name, reached in ROUTES[method].items():
        student.zero_grad()
        parts[name].backward(retain_graph=True)
        assert [gradient > 0 for gradient in student.gradients()] == reached


@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 2], ids=["copies", "adapters"])
@pytest.mark.parametrize("loss", ["hinge", "softplus"])
def test_each_turn_of_dmd_gan_moves_its_own_weights_and_no_others(tmp_path, loss, rank):
    (tmp_path / "prompts.txt").write_text("a cat\ntwo dogs\n")
    settings = {
        **SETTINGS,
        "teacher": tiny_pipelines.save(tmp_path / "teacher"),
        "prompts": tmp_path / "prompts.txt",
        "method": "dmd-gan",
        "gan": {"loss": loss, "r1": 0.1},
        "lora_rank": rank,
    }
    trainer = Trainer(DistillConfig.model_validate(settings), tmp_path / "run")
    assert moved_by(trainer.student_turn, trainer) == {"student"}
    assert moved_by(trainer.critic_turn, trainer) == {"critic", "head"}
    assert moved_by(trainer.student_turn, trainer) == {"student"}
    assert trainer.critic_turn().keys() == {"critic", "discriminator", "critic_grad_norm"}


def moved_by(turn: Callable[[], object], trainer: Trainer) -> set[str]:
    """Name the networks whose weights `turn` has changed; it may leave no gradient, and no trained network frozen."""
    teacher = {name: value for name, value in trainer.teacher.network.state_dict().items() if "lora" not in name}
    parts = {
        "teacher": teacher,
        "student": trainer.student.weights.state_dict(),
        "critic": trainer.critic.weights.state_dict(),
        "head": trainer.method.head.state_dict(),
        "decoder": trainer.vae.state_dict(),
    }
    before = {name: {key: value.clone() for key, value in state.items()} for name, state in parts.items()}
    turn()
    learners = [trainer.student.weights, trainer.critic.weights, trainer.method.head]
    assert all(p.requires_grad and p.grad is None for learner in learners for p in learner.parameters())
    assert all(p.grad is None for p in trainer.teacher.network.parameters())
    return {
        name for name, state in parts.items() if any(not torch.equal(state[key], before[name][key]) for key in state)
    }
