"""The calibration of the simulated workers, and the results of the simulation."""

import json

import pytest

from bench.engine import latency_model
from bench.scaling import __main__ as scaling
from bench.scheduling.calibration import Costs, engine_costs

FIXED_S, PER_ROW_S = 0.002, 0.001


def test_measured_costs_are_at_least_what_the_network_asks_for() -> None:
    costs = engine_costs(latency_model.sleeping_model(FIXED_S, PER_ROW_S), 4, 3)
    assert set(costs.step) == set(costs.finish) == {1, 2, 3, 4}
    for rows, seconds in costs.step.items():
        assert seconds >= FIXED_S + PER_ROW_S * rows


def test_costs_survive_being_written() -> None:
    costs = Costs({1: 0.01, 8: 0.05}, {1: 0.001, 8: 0.002}, 0.008)
    assert Costs.read(json.loads(json.dumps(costs.written()))) == costs


def test_an_image_alone_takes_its_steps_its_end_and_its_way() -> None:
    costs = Costs({1: 0.01, 2: 0.01}, {1: 0.002, 2: 0.002}, 0.005)
    alone = scaling.simulated(costs, 1, [0.0, 1.0, 2.0])
    seconds = pytest.approx(scaling.STEPS * 0.01 + 0.002 + 0.005)
    assert alone == {"p50": seconds, "p99": seconds, "mean_batch": 1}
