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


def test_kernel_distance_is_near_zero_for_equal_and_large_for_shifted_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(500, 8, generator=generator), torch.randn(500, 8, generator=generator)
    assert abs(metrics.kernel_distance(first, second)) < 0.02
    assert metrics.kernel_distance(first, second + 1) > 1


def test_kernel_distance_matches_its_definition() -> None:
    first, second = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)

    def mean(a, b, skip_equal):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (skip_equal and i == j)]
        return sum(float((a[i] @ b[j] / 3 + 1) ** 3) for i, j in pairs) / len(pairs)

    expected = mean(first, first, True) + mean(second, second, True) - 2 * mean(first, second, False)
    assert math.isclose(metrics.kernel_distance(first, second), expected, rel_tol=1e-9)


def test_paired_ratio_is_exact_for_a_constant_factor_and_wide_for_noise() -> None:
    base = torch.rand(64) + 0.5
    exact = metrics.paired_ratio(1.25 * base, base)
    assert (exact.value, exact.low, exact.high) == pytest.approx((1.25, 1.25, 1.25))
    noisy = metrics.paired_ratio(base.roll(1), base)
    assert noisy.low < 1 < noisy.high
    assert noisy == metrics.paired_ratio(base.roll(1), base), "seeded"
