"""Measures of samples of the mixture, for every training seed separately."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from distill.evaluation import metrics
from distill.replicate.mixture import CLASSES, MODES, WITHIN, Mixture
from distill.replicate.mixture_run import NOISE_SEEDS, TEACHER_STEPS
from worker.sampling.noise_schedule import FLOW, Predict, shifted_grid


@dataclass(frozen=True)
class Reference:
    """The guided teacher's own samples: from the noise that students are measured with, `samples`
    [CLASSES · samples, D] and their `modes`, and its `histogram` [CLASSES, MODES] over many more."""

    samples: torch.Tensor
    modes: torch.Tensor
    histogram: torch.Tensor


def labels(samples: int) -> torch.Tensor:
    return torch.arange(CLASSES).repeat_interleave(samples)


def noise(dimension: int, samples: int, seed: int) -> torch.Tensor:
    return torch.randn(CLASSES * samples, dimension, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def teacher_samples(
    world: Mixture, guidance: float, samples: int, seed: int, steps: int = TEACHER_STEPS
) -> torch.Tensor:
    """Sample the teacher along `steps` even steps of the ODE: [CLASSES · samples, D]."""
    predict = world.guided(labels(samples), guidance)
    return FLOW.solve(predict, noise(world.dimension, samples, seed), shifted_grid(steps, 1.0))


def reference(world: Mixture, guidance: float, samples: int, many: int) -> Reference:
    own = teacher_samples(world, guidance, samples, seed=NOISE_SEEDS[0])
    histogram = _histogram(world, teacher_samples(world, guidance, many, seed=NOISE_SEEDS[1]))
    return Reference(own, world.nearest(own)[0], histogram)


@torch.no_grad()
def student_samples(
    predict: Predict, dimension: int, seeds: int, grid: tuple[float, ...], samples: int
) -> torch.Tensor:
    """Sample every seed's student from the same noise: [seeds · CLASSES · samples, D]."""
    return FLOW.solve(predict, noise(dimension, samples, seed=NOISE_SEEDS[0]).repeat(seeds, 1), grid)


def measure(world: Mixture, made: torch.Tensor, teacher: Reference) -> dict[str, float]:
    """Measure one seed's samples `made` [CLASSES · samples, D], in the order and from the noise of `teacher.samples`:

    * diversity: 1 − mean pairwise cosine within a class (Eq. 9);
    * modes: of 8, how many of its class a class's samples hit; entropy: of their histogram, in bits; tv: its total
      variation distance from the teacher's. Samples that are blurred or of another class hit none;
    * sharp: the share within the radius of a mode, of whatever class; residual: the median distance from the nearest
      mean, where 1 is the data's;
    * match: the share that is sharp and of the class asked for;
    * paired: the share in the same mode as the teacher's sample from the same noise; cosine: between these two.
    """
    classes = labels(len(made) // CLASSES)
    mode, distance = world.nearest(made)
    sharp = distance <= world.radius
    histogram = _histogram(world, made)
    return {
        "diversity": float(metrics.pairwise_diversity(made.unflatten(0, (CLASSES, -1))).mean()),
        "modes": float((histogram > 0).sum(1).float().mean()),
        "entropy": float(metrics.entropy(histogram).mean()),
        "tv": float((histogram - teacher.histogram).abs().sum(1).mean() / 2),
        "sharp": float(sharp.float().mean()),
        "residual": float(distance.median()) / (WITHIN * world.dimension**0.5),
        "match": float((sharp & (mode // MODES == classes)).float().mean()),
        "paired": float((sharp & (mode == teacher.modes)).float().mean()),
        "cosine": float(F.cosine_similarity(made, teacher.samples).mean()),
    }


def _histogram(world: Mixture, made: torch.Tensor) -> torch.Tensor:
    """The share of each mode of the class asked for among the sharp samples of that class: [CLASSES, MODES]."""
    classes = labels(len(made) // CLASSES)
    mode, distance = world.nearest(made)
    hit = (distance <= world.radius) & (mode // MODES == classes)
    counts = torch.bincount(mode[hit], minlength=CLASSES * MODES).view(CLASSES, MODES).float()
    return counts / counts.sum(1, keepdim=True).clamp_min(1)
