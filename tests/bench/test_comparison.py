"""The arithmetic of the comparison, its trace and its page."""

import importlib.util
import json
import random

import numpy as np
import pytest

from bench.comparison import trace, user_lines
from bench.comparison.aims import aims
from bench.comparison.figures import Answer, block_rates, goodput, interval, shed
from bench.comparison.profile import shares
from bench.comparison.summary import mean_batch, summary
from bench.comparison.systems import PYTHON, SYSTEMS, Engine, Ports
from bench.comparison.tuning import best
from bench.quantiles import quantile


@pytest.mark.parametrize("engine", ["sampler", "latency-model"])
def test_our_processes_can_be_started(engine: Engine) -> None:
    for command in SYSTEMS["fourstep"].commands(Ports(), engine):
        if command[: len(PYTHON)] == PYTHON:
            module = importlib.util.find_spec(command[len(PYTHON)])
            assert module is not None
            assert module.submodule_search_locations is None, "a package without __main__"


def test_a_quantile_is_the_value_of_its_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)] == [1, 50, 95, 99, 100]
    assert quantile([3.0], 0.99) == 3.0
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0


def test_goodput_counts_images_in_time_by_the_size_of_their_call() -> None:
    alone_s = {1: 0.1, 2: 0.2}
    answers = [
        Answer(1, 200, 0.3),
        Answer(1, 200, 0.31),  # too late for one image
        Answer(2, 200, 0.6),
        Answer(2, 504, 0.1),
        Answer(1, 0, 0.1),
    ]
    assert goodput(answers, alone_s) == pytest.approx(3 / 7)
    assert shed(answers) == pytest.approx(2 / 7)


def test_blocks_have_equal_numbers_of_images() -> None:
    assert block_rates([4.0, 1.0, 2.0, 8.0], 2) == pytest.approx([1.0, 2 / 6])
    assert block_rates([1.0, 2.0, 3.0, 4.0, 6.0], 2) == pytest.approx([1.0, 3 / 4])
    assert block_rates([1.0, 1.0, 1.0, 2.0], 4) == pytest.approx([1.0, 3.0])


def test_an_interval_covers_what_it_should() -> None:
    """It holds the mean of 40 draws between 0 and 1 nineteen times out of twenty (here: at least 43 of 50)."""
    dice = random.Random(1)
    covered = 0
    for _ in range(50):
        middle, low, high = interval([dice.random() for _ in range(40)], np.mean)
        assert low <= middle <= high
        covered += low <= 0.5 <= high
    assert covered >= 43


def test_an_interval_is_reproducible_and_of_one_value_has_no_width() -> None:
    assert interval([3.0, 1.0, 2.0]) == interval([3.0, 1.0, 2.0])
    assert interval([2.5]) == (2.5, 2.5, 2.5)


def test_the_committed_trace_is_what_its_seed_gives() -> None:
    assert trace.load() == trace.record()


def test_the_trace_is_the_load_it_says() -> None:
    calls = trace.load()
    images = sum(call.images for call in calls)
    assert len({call.prompt for call in calls}) == len(calls) == trace.CALLS
    assert calls == sorted(calls, key=lambda call: call.at)
    assert images / calls[-1].at == pytest.approx(1, abs=0.15)  # one image a unit of time
    assert {call.images for call in calls} == {1, 2, 4}


def test_closed_loops_ask_for_other_prompts_each() -> None:
    first, second = trace.singles(50, 4), trace.singles(50, 16)
    assert first == trace.singles(50, 4)
    assert not {call.prompt for call in first} & {call.prompt for call in second}


def test_lines_of_code_are_code_alone() -> None:
    source = '"""Docs.\n\nMore."""\n\n# why\nx = [\n    1,  # one\n]\n\n\ndef f():\n    """Docs."""\n    return x\n'
    assert user_lines.lines_of_code(source) == 5
    assert set(user_lines.counted()) == set(SYSTEMS)


def test_the_best_point_weighs_throughput_and_latency_alike() -> None:
    points = [
        {"tuning": {"batch_size": 2}, "images_per_s": 10.0, "p99_s": 1.0},
        {"tuning": {"batch_size": 8}, "images_per_s": 11.0, "p99_s": 1.05},
        {"tuning": {"batch_size": 4}, "images_per_s": 12.0, "p99_s": 1.5},
    ]
    assert best(points) == {"batch_size": 8}


def _visit(seconds: float) -> dict:
    answers = [(1, 200, seconds)] * 4
    loop = {"answers": answers, "finished": [0.5, 1.0, 1.5, 2.0], "batches": {"1": 2, "2": 1}}
    replay = {"answers": [*answers, (2, 429, 0.01)], "batches": {"4": 1}, "cpu_s_per_image": 0.01}
    first = {"first_picture_s": 3.0, "memory_mib": 100.0, "alone": answers, "bit_equal": {"asked": 4, "equal": 3}}
    return {**first, "closed": {"16": loop}, "replay": replay}


def test_a_summary_pools_the_rounds() -> None:
    bare = {"sampler": {"images_per_s": 4.0, "alone_s": {"1": 0.1, "2": 0.2}}}
    rounds = [{"bare": bare, "visits": {"sampler": {"A": _visit(seconds)}}} for seconds in (0.2, 0.4)]
    found = summary(rounds)["sampler"]["systems"]["A"]
    assert found["images_per_s"]["16"] == [2.0, 2.0, 2.0]
    assert found["of_bare_engine"] == 0.5
    assert found["replay"]["calls"] == 10
    assert found["replay"]["p99_ms"][0] == 400
    assert found["replay"]["goodput"] == round(4 / 12, 3)  # the first round is in time, but for two refused
    assert found["replay"]["shed"] == round(4 / 12, 3)
    assert found["bit_equal"] == {"asked": 8, "equal": 6}
    assert found["batches"] == {"1": 4, "2": 2}
    assert mean_batch(found["batches"]) == pytest.approx(8 / 6)
    json.dumps(found)


def test_a_profile_counts_the_stages_of_the_drawing_thread() -> None:
    drawing = "run (worker/engine_process/device_thread.py:60);step (worker/engine/engine.py:150)"
    stacks = [
        f"{drawing};denoise (model_runner.py:9);__call__ (worker/engine/denoising_step.py:60);linear (nn.py:1) 6",
        f"{drawing};plan (worker/engine/scheduler.py:70) 1",
        f"{drawing} 1",
        "main (worker/process.py:1);_claim (worker/consumer.py:9) 2",
    ]
    found = shares(stacks)
    assert found["drawing thread"] == {"denoising network": 0.75, "plan": 0.125, "other": 0.125}
    assert found["beside it"] == {"queue and Redis": 0.25}


def test_an_aim_is_judged_as_it_is_shown() -> None:
    bare = {"sampler": {"images_per_s": 2.0, "alone_s": {"1": 0.1, "2": 0.2}}}
    systems = {name: _visit(0.2) for name in ("fourstep", "LitServe")}
    figures = summary([{"bare": bare, "visits": {"sampler": systems}}])
    found = {aim["what"]: aim for aim in aims(figures, {"images_per_s": 0.1}, None)}
    assert found["images/s ÷ the best peer with our sampler"] | {"what": ""} == {
        "what": "",
        "target": "≥ 1",
        "value": 1.0,
        "met": True,
        "counted": False,
    }
    assert found["images/s through HTTP at saturation ÷ the bare engine in a loop"]["met"] is True
    assert found["teacher ÷ student, time of an image"]["value"] == 20
    assert found["images/s ÷ diffusers' pipeline behind LitServe"]["met"] is None
