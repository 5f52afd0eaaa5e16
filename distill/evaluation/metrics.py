"""Metrics of sets of pictures, as pure functions of their feature vectors (float tensors).

Sets per prompt are [prompts, samples, width]; whole distributions are [N, width]. docs/evaluation.md lists what each
one cannot see.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

RESAMPLED_AT_ONCE = 2**22


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


def kernel_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """KID: the unbiased squared MMD under the kernel (x·y / D + 1)³, prompt against prompt: [P, R, D] and [P, S, D],
    whose samples must have noise of their own → float64 [P, P]; its mean is the distance.

    Each entry is what two prompts add. Sets that share their prompts are no independent draws: the usual formula over
    all pairs would find pairs of one prompt more often between the sets than within them, and fall below 0. Equal
    places of a set were made from equal noise, whatever the prompt, which makes them alike: they are not compared.
    """
    first, second = first.double(), second.double()
    return _mean_kernel(first, first) + _mean_kernel(second, second) - 2 * _mean_kernel(first, second)


def _mean_kernel(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The mean over two prompts' samples, symmetric in the prompts; within a set, over different places only."""
    prompts, samples, width = first.shape
    matrix = (first.flatten(0, 1) @ second.flatten(0, 1).T / width + 1).pow(3)
    blocks = matrix.view(prompts, samples, prompts, -1)
    if first is second:
        same_place = blocks.diagonal(dim1=1, dim2=3).sum(2)
        return (blocks.sum((1, 3)) - same_place) / (samples * (samples - 1))
    means = blocks.mean((1, 3))
    return (means + means.T) / 2


@dataclass(frozen=True)
class Distance:
    """A student's distance from its teacher, with its 95% interval over prompts.

    95% of the distances between two halves of the teacher's own samples lie below `floor`: a `value` under it is no
    difference.
    """

    value: float
    low: float
    high: float
    floor: float


def halves(samples: int, splits: int = 32, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random disjoint halves of `samples` indices, equally large; an odd one is left out. Raises ValueError for
    fewer than four samples."""
    if samples < 4:
        raise ValueError("halves of the teacher's samples need at least 4 a prompt")
    generator, half = torch.Generator().manual_seed(seed), samples // 2
    orders = [torch.randperm(samples, generator=generator) for _ in range(splits)]
    return [(order[:half], order[half : 2 * half]) for order in orders]


def kernel_distance_and_floor(teacher: torch.Tensor, student: torch.Tensor, draws: int = 2_000) -> Distance:
    """Return the kernel distance (KID) of two sets [P, R, D] that were made from the same noise.

    The teacher's samples from one half of the noise are compared with the student's from the other half. The floor
    compares them with the teacher's own from the other half.
    """
    splits = halves(teacher.shape[1])
    blocks = torch.stack([kernel_distance(teacher[:, one], student[:, other]) for one, other in splits]).mean(0)
    own = torch.stack([kernel_distance(teacher[:, one], teacher[:, other]).mean() for one, other in splits])
    drawn = torch.stack([blocks[row][:, row].mean() for rows in _resampled(len(blocks), draws, 0) for row in rows])
    return Distance(float(blocks.mean()), *_interval(drawn), float(own.quantile(0.95)))


def entropy(histograms: torch.Tensor) -> torch.Tensor:
    """Shannon entropy in bits: shares [P, bins] → [P]."""
    return torch.special.entr(histograms).sum(-1) / math.log(2)


def repeats(kinds: torch.Tensor) -> torch.Tensor:
    """The share of pairs of a prompt's samples that are of one kind: int64 [P, R] → [P]. Unbiased for Σ p²."""
    return _agreement(kinds, kinds)


def histogram_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Σ (p − q)² of two prompts' shares of every kind, estimated without bias: int64 [P, R] twice, where equal places
    were made from equal noise → [P], in [0, 2] but for chance."""
    return repeats(first) + repeats(second) - 2 * _agreement(first, second)


def _agreement(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The share of pairs of samples at different places that are of one kind: [P]."""
    samples = first.shape[1]
    same = (first[:, :, None] == second[:, None, :]).float()
    return (same.sum((1, 2)) - same.diagonal(dim1=1, dim2=2).sum(1)) / (samples * (samples - 1))


@dataclass(frozen=True)
class Estimate:
    """A mean, a difference of means or a ratio of means, with its 95% confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def paired_ratio(numerator: torch.Tensor, denominator: torch.Tensor, draws: int = 10_000, seed: int = 0) -> Estimate:
    """mean(numerator) / mean(denominator), both [P] over the same prompts, by a paired bootstrap over prompts."""
    above, below = numerator.double(), denominator.double()
    drawn = [above[rows].mean(1) / below[rows].mean(1) for rows in _resampled(len(above), draws, seed)]
    return Estimate(float(above.mean() / below.mean()), *_interval(torch.cat(drawn)))


def paired_difference(first: torch.Tensor, second: torch.Tensor, draws: int = 10_000, seed: int = 0) -> Estimate:
    """mean(first) − mean(second), both [P] over the same prompts, by a paired bootstrap over prompts."""
    return mean_and_interval(first.double() - second.double(), draws, seed)


def mean_and_interval(values: torch.Tensor, draws: int = 10_000, seed: int = 0) -> Estimate:
    """The mean of [P], by a bootstrap over prompts."""
    drawn = [values.double()[rows].mean(1) for rows in _resampled(len(values), draws, seed)]
    return Estimate(float(values.double().mean()), *_interval(torch.cat(drawn)))


def _resampled(prompts: int, draws: int, seed: int) -> Iterator[torch.Tensor]:
    """Prompts drawn with replacement, int64 [·, prompts], in parts that fit the memory; `draws` rows in all."""
    generator, part = torch.Generator().manual_seed(seed), max(1, RESAMPLED_AT_ONCE // prompts)
    for start in range(0, draws, part):
        yield torch.randint(prompts, (min(part, draws - start), prompts), generator=generator)


def _interval(drawn: torch.Tensor) -> tuple[float, float]:
    """The middle 95% of float64 [draws]."""
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
