"""The terms that the baselines add: what they prefer, and whom they teach."""

import pytest
import torch
from torch import nn

from distill import dp_dmd, perceptual
from distill.adversary import Adversary, Head, discriminator_loss, generator_loss
from distill.noise_schedule import shifted_grid
from tests.distill.test_dp_dmd import METHOD, PerStepStudent, student_losses


def two_maps() -> nn.Module:
    """A factory as a configuration names it."""

    class TwoMaps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            early = self.first(images)
            return [early, self.second(early.relu())]

    return TwoMaps()


def test_perceptual_distance_is_zero_for_equals_and_pulls_images_only():
    network = perceptual.feature_network("tests.distill.test_baselines:two_maps")
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    other = torch.randn(2, 3, 8, 8, requires_grad=True)
    assert perceptual.distance(network, images, images).item() == 0.0
    loss = perceptual.distance(network, images, other)
    loss.backward()
    assert loss > 0
    assert images.grad.abs().sum() > 0
    assert other.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())


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
    """For logits that are linear in the state: their squared gradient."""
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
