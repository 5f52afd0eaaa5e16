"""Metrics of sets of pictures, as pure functions of their feature vectors (float tensors).

Sets per prompt are [prompts, samples, width]; whole distributions are [N, width].
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


def pairwise_diversity(features: torch.Tensor) -> torch.Tensor:
    """1 − mean cosine between the samples of a prompt (arXiv 2602.03139, Eq. 9): [P, R, D] → float [P].

    Raises ValueError for fewer than two samples a prompt.
    """
    samples = features.shape[1]
    if samples < 2:
        raise ValueError("pairwise diversity needs at least 2 samples a prompt")
    unit = F.normalize(features, dim=-1)
    total = (unit @ unit.transpose(1, 2)).sum((1, 2)) - unit.square().sum((1, 2))
    return 1 - total / (samples * (samples - 1))


def vendi_share(features: torch.Tensor) -> torch.Tensor:
    """The Vendi score exp(H(eigenvalues of K/R)) with a cosine kernel, as a share of its maximum R: [P, R, D] → [P]."""
    samples = features.shape[1]
    unit = F.normalize(features.double(), dim=-1)
    values = torch.linalg.eigvalsh(unit @ unit.transpose(1, 2) / samples).clamp_min(0)
    entropy = torch.special.entr(values).sum(-1)
    return (entropy.exp() / samples).to(features.dtype)


@dataclass(frozen=True)
class Manifolds:
    """Overlap of two distributions by k-nearest-neighbour balls (Kynkäänniemi 2019; Naeem 2020), each in [0, 1]
    but `density`, which may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifolds(reference: torch.Tensor, samples: torch.Tensor, k: int = 5) -> Manifolds:
    """Precision, recall, density and coverage of `samples` [M, D] against `reference` [N, D]."""
    between = torch.cdist(reference, samples)
    reference_radius, sample_radius = _radius(reference, k), _radius(samples, k)
    inside_reference = between < reference_radius[:, None]
    return Manifolds(
        precision=float(inside_reference.any(0).float().mean()),
        recall=float((between < sample_radius[None, :]).any(1).float().mean()),
        density=float(inside_reference.float().sum(0).mean() / k),
        coverage=float((between.min(1).values < reference_radius).float().mean()),
    )


def _radius(points: torch.Tensor, k: int) -> torch.Tensor:
    """Distance of every point to its k-th neighbour other than itself: [N]."""
    return torch.cdist(points, points).kthvalue(k + 1, dim=1).values


def kernel_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """KID: the unbiased squared MMD under the kernel (x·y / D + 1)³. Around 0 for equal distributions, never biased
    by the number of samples; may come out slightly negative."""

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / a.shape[1] + 1).pow(3)

    def within(points: torch.Tensor) -> torch.Tensor:
        matrix, count = kernel(points, points), len(points)
        return (matrix.sum() - matrix.trace()) / (count * (count - 1))

    first, second = first.double(), second.double()
    return float(within(first) + within(second) - 2 * kernel(first, second).mean())


@dataclass(frozen=True)
class Ratio:
    """A ratio of means with its 95% confidence interval."""

    value: float
    low: float
    high: float


def paired_ratio(numerator: torch.Tensor, denominator: torch.Tensor, draws: int = 10_000, seed: int = 0) -> Ratio:
    """mean(numerator) / mean(denominator), both [P] over the same prompts, by a paired bootstrap over prompts."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(numerator), (draws, len(numerator)), generator=generator)
    ratios = numerator[rows].double().mean(1) / denominator[rows].double().mean(1)
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Ratio(float(numerator.double().mean() / denominator.double().mean()), low, high)
