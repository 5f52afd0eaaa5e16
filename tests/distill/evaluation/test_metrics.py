"""The evaluation metrics on sets whose answer is known."""

import math

import pytest
import torch

from distill.evaluation import metrics


def test_diversity_of_equal_opposite_and_orthogonal_sets() -> None:
    equal = torch.ones(1, 4, 8)
    opposite = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    orthogonal = torch.eye(6)[None] * 3
    assert metrics.pairwise_diversity(equal).tolist() == pytest.approx([0.0], abs=1e-6)
    assert metrics.pairwise_diversity(opposite).tolist() == pytest.approx([2.0])
    assert metrics.pairwise_diversity(orthogonal).tolist() == pytest.approx([1.0])


def test_diversity_is_the_papers_sum_over_pairs() -> None:
    features = torch.randn(3, 9, 16)
    cosines = [
        torch.stack([torch.cosine_similarity(one[i], one[j], dim=0) for i in range(9) for j in range(i)]).mean()
        for one in features
    ]
    torch.testing.assert_close(metrics.pairwise_diversity(features), 1 - torch.stack(cosines))


def test_diversity_of_a_single_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        metrics.pairwise_diversity(torch.randn(3, 1, 4))


def test_vendi_counts_distinct_samples() -> None:
    two_of_four = torch.eye(4)[[0, 0, 1, 1]][None]
    assert metrics.vendi_share(two_of_four).tolist() == pytest.approx([0.5])
    assert metrics.vendi_share(torch.eye(4)[None]).tolist() == pytest.approx([1.0])
    assert metrics.vendi_share(torch.ones(1, 4, 3)).tolist() == pytest.approx([0.25])


def test_manifolds_tell_lost_modes_from_wrong_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(200, 4, generator=generator) + shift for shift in (-20.0, 20.0))
    far = torch.randn(200, 4, generator=generator) + 100
    both = torch.cat([left, right])
    collapsed = metrics.manifolds(both, torch.randn(400, 4, generator=generator) - 20)
    assert collapsed.precision > 0.9
    assert collapsed.recall < 0.6
    assert collapsed.coverage < 0.6
    wrong = metrics.manifolds(both, far)
    assert (wrong.precision, wrong.coverage, wrong.density) == (0.0, 0.0, 0.0)


def test_kernel_distance_matches_its_definition() -> None:
    first, second = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)

    def mean(a: torch.Tensor, b: torch.Tensor, p: int, q: int, distinct: bool) -> float:
        pairs = [(x, y) for x in range(len(a[p])) for y in range(len(b[q])) if not (distinct and x == y)]
        return sum(float((a[p, x] @ b[q, y] / 4 + 1) ** 3) for x, y in pairs) / len(pairs)

    blocks = [(p, q) for p in range(2) for q in range(2)]
    expected = sum(
        mean(first, first, *pair, True) + mean(second, second, *pair, True) - 2 * mean(first, second, *pair, False)
        for pair in blocks
    )
    assert math.isclose(metrics.kernel_distance(first, second).mean(), expected / 4, rel_tol=1e-9)


def prompts_apart(samples: int, generator: torch.Generator) -> torch.Tensor:
    """64 prompts, far from each other, with narrow samples: [64, samples, 8]."""
    centres = 2 * torch.randn(64, 1, 8, generator=generator)
    return centres + 0.3 * torch.randn(64, samples, 8, generator=generator)


def test_kernel_distance_of_sets_that_share_prompts_is_not_biased() -> None:
    """A case where the formula over all pairs, blind to prompts, is far below 0."""
    generator = torch.Generator().manual_seed(0)
    made = prompts_apart(40 * 8, generator)
    found = torch.stack([metrics.kernel_distance(*part.chunk(2, 1)).mean() for part in made.chunk(40, 1)])
    assert abs(found.mean()) < 3 * found.std() / 40**0.5
    flat = made[:, :4].flatten(0, 1).double(), made[:, 4:8].flatten(0, 1).double()
    blind = metrics.kernel_distance(*(part[None] for part in flat)).item()
    assert blind < -10 * found.std()


def test_kernel_distance_is_not_biased_by_noise_that_prompts_share() -> None:
    """As in an evaluation, where every prompt has the same seeds."""
    generator = torch.Generator().manual_seed(0)
    made = prompts_apart(40 * 8, generator) + torch.randn(1, 40 * 8, 8, generator=generator)
    found = torch.stack([metrics.kernel_distance(*part.chunk(2, 1)).mean() for part in made.chunk(40, 1)])
    assert abs(found.mean()) < 3 * found.std() / 40**0.5
    alike = metrics.kernel_distance_and_floor(made[:, :9], made[:, :9], draws=200)
    assert abs(alike.value) < 0.05 * alike.floor


def test_kernel_distance_of_an_equal_student_is_under_its_floor_and_of_another_above_it() -> None:
    generator = torch.Generator().manual_seed(0)
    both = prompts_apart(18, generator)
    teacher, equal = both[:, :9], both[:, 9:]
    same = metrics.kernel_distance_and_floor(teacher, equal, draws=200)
    assert same.low < 0 < same.high
    assert same.value < same.floor
    blurred = metrics.kernel_distance_and_floor(teacher, 0.9 * equal, draws=200)
    assert blurred.low > same.floor
    assert blurred.low < blurred.value < blurred.high


def test_halves_are_disjoint_and_need_four_samples() -> None:
    for one, other in metrics.halves(9):
        assert len(one) == len(other) == 4
        assert not set(one.tolist()) & set(other.tolist())
    with pytest.raises(ValueError, match="at least 4"):
        metrics.halves(3)


def test_entropy_of_known_histograms() -> None:
    shares = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert metrics.entropy(shares).tolist() == pytest.approx([1.0, 0.0])


def test_histogram_distance_is_unbiased_and_tells_collapse() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(4, (5_000, 4), generator=generator) for _ in range(2))
    assert metrics.repeats(first).mean().item() == pytest.approx(0.25, abs=0.01)
    assert metrics.histogram_distance(first, second).mean().item() == pytest.approx(0, abs=0.01)
    collapsed = torch.zeros_like(first)
    assert metrics.repeats(collapsed).unique().tolist() == [1]
    # (1 − ¼)² + 3 · ¼²
    assert metrics.histogram_distance(collapsed, first).mean().item() == pytest.approx(0.75, abs=0.01)


def test_paired_difference_is_exact_for_a_constant_and_covers_zero_for_noise() -> None:
    base = torch.randn(64, generator=torch.Generator().manual_seed(0))
    exact = metrics.paired_difference(base + 2, base)
    assert (exact.value, exact.low, exact.high) == pytest.approx((2, 2, 2))
    noisy = metrics.paired_difference(base.roll(1), base)
    assert noisy.low < 0 < noisy.high


def test_paired_ratio_is_exact_for_a_constant_factor_and_wide_for_noise() -> None:
    base = torch.rand(64) + 0.5
    exact = metrics.paired_ratio(1.25 * base, base)
    assert (exact.value, exact.low, exact.high) == pytest.approx((1.25, 1.25, 1.25))
    noisy = metrics.paired_ratio(base.roll(1), base)
    assert noisy.low < 1 < noisy.high
    assert noisy == metrics.paired_ratio(base.roll(1), base), "seeded"


def test_intervals_do_not_need_all_draws_in_memory(monkeypatch) -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    at_once = metrics.mean_and_interval(values)
    monkeypatch.setattr(metrics, "RESAMPLED_AT_ONCE", 333)
    in_parts = metrics.mean_and_interval(values)
    assert in_parts.value == at_once.value
    assert (in_parts.low, in_parts.high) == pytest.approx((at_once.low, at_once.high), abs=0.02)
