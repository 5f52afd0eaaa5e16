"""From answers to figures: quantiles, goodput, intervals."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.quantiles import quantile

RESAMPLES, CONFIDENCE = 1000, 0.95
SLO = 3.0
"""A call is in time when it takes at most so many times as long as alone on the bare engine."""

SHED = (429, 503, 504)
"""Statuses by which a server refuses load or gives up a call that waited too long."""


@dataclass(frozen=True)
class Answer:
    """The outcome of one call: `status` 0 when the connection broke; `seconds` from the moment it was due."""

    images: int
    status: int
    seconds: float

    @property
    def ok(self) -> bool:
        return self.status == 200


def goodput(answers: Sequence[Answer], alone_s: dict[int, float]) -> float:
    """Share of the requested images that came within SLO × `alone_s`, the seconds of a call of so many images alone."""
    in_time = sum(answer.images for answer in answers if answer.ok and answer.seconds <= SLO * alone_s[answer.images])
    return in_time / sum(answer.images for answer in answers)


def shed(answers: Sequence[Answer]) -> float:
    """Share of the requested images that were refused or given up by the server."""
    return sum(answer.images for answer in answers if answer.status in SHED) / sum(one.images for one in answers)


def interval(
    values: Sequence[float], statistic: Callable[..., Any] = np.median, seed: int = 0
) -> tuple[float, float, float]:
    """`statistic` of `values`, which takes an `axis`, and the ends of its 95% bootstrap interval (percentiles of
    resampled values)."""
    dice = random.Random(seed)
    resampled = statistic([dice.choices(values, k=len(values)) for _ in range(RESAMPLES)], axis=1)
    outside = (1 - CONFIDENCE) / 2
    return float(statistic(values, axis=0)), quantile(resampled, outside), quantile(resampled, 1 - outside)


def block_rates(finished: Sequence[float], blocks: int) -> list[float]:
    """Seconds after which each of the images was done → images a second in each of `blocks` equal parts of them.

    A part that took no time, of images that came together, counts with the next.
    """
    ordered, rates, since, counted = sorted(finished), list[float](), 0.0, 0
    for block in range(1, blocks + 1):
        upto = len(ordered) * block // blocks
        end = ordered[upto - 1] if upto else 0.0
        if end > since:
            rates.append((upto - counted) / (end - since))
            since, counted = end, upto
    return rates
