"""The simulated queue against what queueing theory knows, and the plan against the policies it replaces."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import islice
from statistics import mean

import pytest

from bench.scheduling.policies import Case, compare, ratio
from bench.scheduling.simulation import (
    Device,
    Policy,
    Simulation,
    bursty,
    image_at_a_time,
    jobs,
    poisson,
    request_at_a_time,
    request_batching,
    step_level,
)

COMPUTE_BOUND = Device(float)


def arrivals(load: float, sizes: list[int], count: int, seed: int = 0) -> list[tuple[float, int]]:
    dice = random.Random(seed)
    return jobs(poisson(load * COMPUTE_BOUND.capacity * len(sizes) / sum(sizes), dice), sizes, count, dice)


def test_one_at_a_time_waits_as_long_as_an_md1_queue() -> None:
    """Pollaczek and Khinchine: the mean wait is ρ/(2(1−ρ)) services, of 4 here."""
    report = Simulation(COMPUTE_BOUND, image_at_a_time(COMPUTE_BOUND)).run(arrivals(0.5, [1], 4_000))
    assert mean(report.latencies) == pytest.approx(4 * (1 + 0.5 / (2 * 0.5)), rel=0.1)
    assert report.mean_batch == 1
    assert report.throughput == pytest.approx(0.5 / 4, rel=0.1)


def test_a_batch_takes_what_the_curve_says() -> None:
    device = Device(step=lambda rows: 1 + rows, decode=lambda rows: 10 * rows)
    alone = Simulation(device, request_batching(device)).run([(0.0, 3)])
    assert alone.latencies == [4 * 5 + 30]
    assert alone.mean_batch == 3
    two = Simulation(device, request_at_a_time(device)).run([(0.0, 1), (0.0, 1)])
    assert two.latencies == [4 * 2 + 10, 2 * (4 * 2 + 10)]
    waiting = Simulation(device, request_batching(device, wait=5)).run([(0.0, 1), (3.0, 1)])
    assert waiting.latencies == [5 + 4 * 3 + 20, 2 + 4 * 3 + 20]


def test_a_row_joins_at_the_next_step() -> None:
    device = Device(step=lambda rows: 1.0)
    report = Simulation(device, step_level(device)).run([(0.0, 1), (1.5, 1)])
    assert report.latencies == [4.0, 2.0 - 1.5 + 4.0]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("policy", [step_level, image_at_a_time, request_at_a_time, request_batching])
def test_every_image_is_made_once(policy: Callable[[Device], Policy], workers: int) -> None:
    calls = arrivals(0.9 * workers, [1, 3, 16], 100)
    report = Simulation(COMPUTE_BOUND, policy(COMPUTE_BOUND), workers, window=12).run(calls)
    assert report.images == sum(images for _, images in calls)
    assert len(report.latencies) == 100
    assert min(report.latencies) >= 4


def test_bursts_come_at_the_same_mean_rate() -> None:
    times = list(islice(bursty(2.0, random.Random(0), burst=4), 4000))
    assert set(Counter(times).values()) == {4}
    assert times[-1] == pytest.approx(2000, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.5, 0.9])
@pytest.mark.parametrize(("sizes", "count"), [("1", 400), ("16", 40), ("1 and 16", 200)])
@pytest.mark.parametrize("curve", ["launch-bound", "mixed 0.3", "compute-bound"])
def test_the_plan_loses_to_neither_first_come_first_served_nor_request_batching(
    curve: str, sizes: str, count: int, load: float
) -> None:
    """A small part of docs/batching.md's table, where the figures are."""
    reports = compare(Case(curve, sizes, load), count)
    assert ratio(reports, 0.5) <= 1.05
    assert ratio(reports, 0.99) <= 1.05
    assert reports["plan"].throughput >= 0.99 * max(report.throughput for report in reports.values())
