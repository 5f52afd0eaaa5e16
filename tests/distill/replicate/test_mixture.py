"""The mixture world and its exact teacher, against densities and central differences."""

import math

import pytest
import torch

from distill.replicate import measures
from distill.replicate.mixture import CLASSES, MODES, WITHIN, Mixture
from worker.sampling.noise_schedule import FLOW, shifted_grid

WORLD = Mixture.drawn(6, seed=3)


def log_density(world: Mixture, state: torch.Tensor, t: torch.Tensor, label: int | None) -> torch.Tensor:
    """log p(z_t), or log p(z_t | class), of one state [D], in float64."""
    means, weights = world.means.double(), world.log_weights.double()
    chosen = slice(None) if label is None else slice(label * MODES, (label + 1) * MODES)
    variance = WITHIN**2 * (1 - t) ** 2 + t**2
    squared = (state - (1 - t) * means[chosen]).square().sum(1)
    prior = (weights - math.log(CLASSES)).flatten() if label is None else weights[label]
    return torch.logsumexp(prior - squared / (2 * variance), 0) - 0.5 * world.dimension * torch.log(variance)


def velocity_by_differences(world: Mixture, state: torch.Tensor, t: float, label: int | None) -> torch.Tensor:
    """v from the score s of log p, by central differences: E[x | z] = (z + t²·s)/(1 − t), v = (z − E[x | z])/t."""
    step, level, state = 1e-5, torch.tensor(t, dtype=torch.float64), state.double()
    score = torch.stack(
        [
            (
                log_density(world, state + step * axis, level, label)
                - log_density(world, state - step * axis, level, label)
            )
            / (2 * step)
            for axis in torch.eye(world.dimension, dtype=torch.float64)
        ]
    )
    return (state - (state + t**2 * score) / (1 - t)) / t


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_teachers_velocity_is_the_score_of_the_mixture(t: float) -> None:
    labels = torch.tensor([0, 4, 9])
    data = WORLD.sample(labels, torch.Generator().manual_seed(0))
    noise = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    levels = torch.full((3,), t)
    states = FLOW.noised(data, noise, levels)
    of_class = [velocity_by_differences(WORLD, z, t, int(label)) for z, label in zip(states, labels, strict=True)]
    of_all = [velocity_by_differences(WORLD, z, t, None) for z in states]
    torch.testing.assert_close(
        WORLD.conditional(labels)(states, levels), torch.stack(of_class).float(), atol=2e-4, rtol=2e-4
    )
    guided = [whole + 3.5 * (own - whole) for own, whole in zip(of_class, of_all, strict=True)]
    torch.testing.assert_close(
        WORLD.guided(labels, 3.5)(states, levels), torch.stack(guided).float(), atol=1e-3, rtol=1e-3
    )


def test_the_unguided_teachers_ode_ends_in_the_mixture() -> None:
    world = Mixture.drawn(64)
    labels = measures.labels(256)
    made = FLOW.solve(world.conditional(labels), measures.noise(64, 256, seed=5), shifted_grid(60, 3.0))
    mode, distance = world.nearest(made)
    assert (mode // MODES == labels).all()
    assert (distance <= world.radius).float().mean() > 0.99
    weights = world.log_weights.exp().flatten()
    counts = torch.bincount(mode, minlength=CLASSES * MODES)
    # In standard deviations of a binomial; 80 of them stay within 4.5 but for one time in 2,000.
    assert ((counts - 256 * weights) / (256 * weights * (1 - weights)).sqrt()).abs().max() < 4.5


def counted(world: Mixture, modes: torch.Tensor, teacher: measures.Reference) -> dict[str, float]:
    return measures.measure(world, world.means[modes], teacher)


def test_the_oracle_counts_modes_exactly() -> None:
    world = Mixture.drawn(64)
    each = torch.arange(CLASSES * MODES)
    uniform = torch.full((CLASSES, MODES), 1 / MODES)
    teacher = measures.Reference(world.means[each], each, uniform)
    whole = counted(world, each, teacher)
    assert whole["modes"] == MODES
    assert whole["entropy"] == pytest.approx(math.log2(MODES))
    assert whole["tv"] == pytest.approx(0, abs=1e-6)
    assert whole["sharp"] == whole["match"] == whole["paired"] == 1
    assert whole["residual"] == pytest.approx(0, abs=1e-3)
    one = counted(world, each // MODES * MODES, teacher)
    assert one["modes"] == 1
    assert one["entropy"] == 0
    assert one["tv"] == pytest.approx(1 - 1 / MODES)
    assert one["diversity"] == pytest.approx(0, abs=1e-5)
    assert one["paired"] == pytest.approx(1 / MODES)
    another_class = counted(world, each.roll(MODES), teacher)
    assert another_class["sharp"] == 1
    assert another_class["match"] == another_class["modes"] == 0


def test_a_blend_of_two_modes_is_no_mode() -> None:
    world = Mixture.drawn(64)
    each = torch.arange(CLASSES * MODES)
    teacher = measures.Reference(world.means[each], each, torch.full((CLASSES, MODES), 1 / MODES))
    blended = measures.measure(world, (world.means + world.means.roll(1, 0)) / 2, teacher)
    assert blended["sharp"] == blended["modes"] == blended["match"] == 0


def test_data_lie_within_the_radius_and_no_two_modes_share_it() -> None:
    for dimension in (64, 256):
        world = Mixture.drawn(dimension)
        labels = measures.labels(200)
        mode, distance = world.nearest(world.sample(labels, torch.Generator().manual_seed(0)))
        assert (mode // MODES == labels).all()
        assert (distance <= world.radius).all()
        apart = torch.cdist(world.means, world.means) + torch.eye(CLASSES * MODES) * 1e9
        assert apart.min() > 2 * world.radius
