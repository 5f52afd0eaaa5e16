"""The simulated queue against what queueing theory knows, and the rule against others, peers and a bound."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from statistics import mean

import pytest

from bench.scheduling import tables
from bench.scheduling.bound import least_mean_latency
from bench.scheduling.peers import call_at_a_time, call_batching, image_at_a_time, image_batching
from bench.scheduling.policies import KINDS, Cell, cells, figures, read
from bench.scheduling.simulation import SIZE, Call, Device, Policy, Simulation, bursty, calls, poisson
from bench.scheduling.step_rules import step_level

LARGE = (128, 128)
COMPUTE_BOUND = Device(float)


def arrivals(load: float, sizes: list[int], count: int, seed: int = 0) -> list[Call]:
    dice = random.Random(seed)
    return calls(poisson(load * COMPUTE_BOUND.capacity * len(sizes) / sum(sizes), dice), sizes, count, dice)


def test_one_at_a_time_waits_as_long_as_an_md1_queue() -> None:
    """Pollaczek and Khinchine: the mean wait is ρ/(2(1−ρ)) services, of 4 here."""
    report = Simulation(COMPUTE_BOUND, image_at_a_time(COMPUTE_BOUND)).run(arrivals(0.5, [1], 4_000))
    assert mean(report.latencies) == pytest.approx(4 * (1 + 0.5 / (2 * 0.5)), rel=0.1)
    assert report.mean_batch == 1
    assert report.throughput == pytest.approx(0.5 / 4, rel=0.1)


def test_a_batch_takes_what_the_curve_says() -> None:
    device = Device(step=lambda rows: 1 + rows, decode=lambda rows: 10 * rows)
    alone = Simulation(device, image_batching(device)).run([Call(0.0, 3)])
    assert alone.latencies == [4 * 4 + 30]
    assert alone.mean_batch == 3
    two = Simulation(device, call_at_a_time(device)).run([Call(0.0), Call(0.0)])
    assert two.latencies == [4 * 2 + 10, 2 * (4 * 2 + 10)]
    waiting = Simulation(device, image_batching(device, wait=5)).run([Call(0.0), Call(3.0)])
    assert waiting.latencies == [5 + 4 * 3 + 20, 2 + 4 * 3 + 20]


def test_padding_sizes_and_strict_calls_cost_what_they_take() -> None:
    device = Device(step=lambda rows: 1.0 + rows, batch_sizes=(1, 4, 8), slower={SIZE: 1.0, LARGE: 3.0})
    taken = {
        call: Simulation(device, step_level(device)).run([call]).latencies
        for call in (Call(0.0, 3), Call(0.0, 3, LARGE), Call(0.0, strict=True))
    }
    assert list(taken.values()) == [[4 * 5.0], [3 * 4 * 5.0], [4 * 9.0]]


def test_a_row_joins_at_the_next_step() -> None:
    device = Device(step=lambda rows: 1.0)
    report = Simulation(device, step_level(device)).run([Call(0.0), Call(1.5)])
    assert report.latencies == [4.0, 2.0 - 1.5 + 4.0]


def test_batches_of_calls_hold_only_calls_that_are_alike() -> None:
    device = Device(step=lambda rows: 1.0)
    made = [Call(0.0, 2), Call(0.0, 1), Call(0.0, 2), Call(0.0, 2, LARGE), Call(0.0, 16)]
    device = replace(device, slower={SIZE: 1.0, LARGE: 1.0})
    report = Simulation(device, call_batching(device)).run(made)
    assert sorted(report.latencies) == [4.0, 4.0, 8.0, 12.0, 20.0]


def test_calls_that_miss_their_deadline_are_counted() -> None:
    report = Simulation(COMPUTE_BOUND, image_at_a_time(COMPUTE_BOUND)).run(
        [Call(0.0, deadline=4.0), Call(0.0, deadline=7.9), Call(0.0)]
    )
    assert report.late == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("policy", [step_level, image_at_a_time, call_at_a_time, image_batching, call_batching])
def test_every_image_is_made_once(policy: Callable[[Device], Policy], workers: int, kind: str) -> None:
    cell = Cell("mixed 0.3", 8, True, "1 and 16", 0.9, kind=kind)
    made = cell.calls(100)
    report = Simulation(cell.device(), policy(cell.device()), workers, window=12).run(made)
    assert report.images == sum(call.images for call in made)
    assert len(report.latencies) == 100
    assert min(report.latencies) >= cell.device().seconds(1, 4, 1) - 1e-9


@pytest.mark.slow
def test_no_policy_beats_the_bound() -> None:
    for cell in list(cells())[::40]:
        found = figures(cell, 60)
        assert found["bound_ms"] <= min(found["mean_ms"].values()) + 0.01, cell


def test_the_bound_is_reached_where_one_image_at_a_time_is_best() -> None:
    made = arrivals(0.7, [1], 500)
    report = Simulation(COMPUTE_BOUND, step_level(COMPUTE_BOUND)).run(made)
    assert report.mean_latency == pytest.approx(least_mean_latency(COMPUTE_BOUND, made), rel=1e-9)


def test_bursts_come_at_the_same_mean_rate() -> None:
    times = list(islice(bursty(2.0, random.Random(0), burst=4), 4000))
    assert set(Counter(times).values()) == {4}
    assert times[-1] == pytest.approx(2000, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("cell", list(cells())[::60], ids=str)
def test_the_figures_of_a_cell_are_those_of_the_committed_sweep(cell: Cell) -> None:
    """A small part of the sweep made again: the same seed gives the same figures."""
    committed, count = read()
    assert figures(cell, count) in committed


def test_the_page_holds_the_tables_of_the_results() -> None:
    page = tables.PAGE.read_text()
    assert tables.rendered(page) == page
