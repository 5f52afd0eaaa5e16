"""Diverse sets: every candidate takes one step, the chosen ones the rest, and each image reproduces alone."""

import random
import time
from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pytest
import torch

from jobs.models import ImageTask
from tests.worker.tasks import image_task, pictures, random_task, run, set_task
from worker.engine.diverse_set import farthest_apart
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure, FinishedSet, Measured
from worker.model_folder.loading import LoadedModel, served
from worker.testing import tiny_pipelines


def finished_set(engine: Engine, task: ImageTask) -> FinishedSet:
    outcome = run(engine, [task])["0"]
    assert isinstance(outcome, FinishedSet)
    assert not engine.busy
    return outcome


def test_the_greedy_choice_is_far_apart() -> None:
    angles = torch.tensor([0.0, 0.05, 1.6, 1.65, 3.1, 4.7])
    chosen = farthest_apart(torch.stack([angles.cos(), angles.sin()], 1), 4)
    assert sorted({0: 0, 1: 0, 2: 2, 3: 2, 4: 4, 5: 5}[position] for position in chosen) == [0, 2, 4, 5]


def test_the_choice_is_near_the_best_of_all_and_above_any_prefix() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(20):
        vectors = torch.nn.functional.normalize(torch.randn(10, 6, generator=generator), dim=1)
        distance = 1 - vectors @ vectors.T

        def spread(chosen: Iterable[int], distance: torch.Tensor = distance) -> float:
            return sum(float(distance[a, b]) for a, b in combinations(chosen, 2))

        best = max(spread(subset) for subset in combinations(range(10), 4))
        shares.append(spread(farthest_apart(vectors, 4)) / best)
    assert min(shares) > 0.85
    assert sum(shares) / len(shares) > 0.95


def test_what_is_not_finite_is_chosen_last_and_nothing_twice() -> None:
    vectors = torch.eye(4)
    vectors[2] = float("nan")
    assert set(farthest_apart(vectors, 3)) == {0, 1, 3}
    assert sorted(farthest_apart(vectors, 4)) == [0, 1, 2, 3]
    assert sorted(farthest_apart(torch.ones(3, 4), 3)) == [0, 1, 2]


def test_all_candidates_take_one_step_and_only_the_chosen_the_rest(tiny_model: LoadedModel) -> None:
    measured: list[Measured] = []
    engine = Engine(tiny_model, max_batch=4)
    engine.runner.measure = measured.append
    made = finished_set(engine, set_task(3, 10, seed=20))
    assert sum(cost.rows for cost in measured if cost.stage == "denoise_step") == 10 + 3 * 3
    assert sum(cost.rows for cost in measured if cost.stage == "decode") == 3
    seeds = [picture.seed for picture in made.pictures]
    assert seeds == sorted(set(seeds))
    assert set(seeds) <= set(range(20, 30))


def test_the_chosen_are_those_foreseen_farthest_apart(tiny_model: LoadedModel) -> None:
    """Worked out again from single rows."""
    engine = Engine(tiny_model, max_batch=1)
    pred_x0 = []
    for seed in range(8):
        engine.add({"it": image_task(seed=seed)})
        engine.step()
        pred_x0.append(engine._rows["it"].pred_x0)
        engine.withdraw(["it"])
    cells = torch.stack(pred_x0).unflatten(-2, (8, 2)).unflatten(-1, (8, 2)).mean((-3, -1)).flatten(1)
    cells = cells - cells.mean(1, keepdim=True)
    expected = farthest_apart(torch.nn.functional.normalize(cells, dim=1), 3)
    made = finished_set(Engine(tiny_model, 4), set_task(3, 8))
    assert [picture.seed for picture in made.pictures] == sorted(expected)


def test_strict_each_image_is_bit_equal_to_a_plain_call_with_its_seed(tiny_model: LoadedModel) -> None:
    task = set_task(3, 9, seed=5, mode="strict")
    for picture in finished_set(Engine(tiny_model, 4), task).pictures:
        (alone,) = pictures(Engine(tiny_model, 4), [image_task(seed=picture.seed, mode="strict")])
        assert np.array_equal(alone.pixels, picture.pixels)
        assert alone.layout == pytest.approx(picture.layout, abs=1e-6)


def test_fast_each_image_is_close_to_a_plain_call_with_its_seed(tiny_model: LoadedModel) -> None:
    for picture in finished_set(Engine(tiny_model, 8), set_task(3, 9, seed=5)).pictures:
        (alone,) = pictures(Engine(tiny_model, 1), [image_task(seed=picture.seed)])
        assert np.abs(alone.pixels.astype(int) - picture.pixels).max() <= 1


@pytest.mark.slow
def test_strict_sets_do_not_depend_on_the_company(tiny_model: LoadedModel) -> None:
    task = set_task(3, 9, seed=5, mode="strict")
    alone = finished_set(Engine(tiny_model, 4), task)
    dice = random.Random(0)
    for _ in range(6):
        engine = Engine(tiny_model, 4)
        tasks = {str(number): random_task(dice) for number in range(8)} | {"it": task, "other": set_task(2, 5)}
        keys = list(tasks)
        dice.shuffle(keys)
        outcomes = {}
        while keys or engine.busy:
            while keys and (not engine.busy or dice.random() < 0.6):
                key = keys.pop()
                engine.add({key: tasks[key]})
            outcomes |= {outcome.key: outcome for outcome in engine.step()}
        assert set(outcomes) == set(tasks)
        among = outcomes["it"]
        assert isinstance(among, FinishedSet)
        for one, other in zip(alone.pictures, among.pictures, strict=True):
            assert one.seed == other.seed
            assert np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("steps", [0, 1, 3, 5])
def test_a_set_is_withdrawn_whole(tiny_model: LoadedModel, steps: int) -> None:
    engine = Engine(tiny_model, max_batch=4)
    engine.add({"set": set_task(2, 10), "one": image_task(seed=99)})
    outcomes = [outcome.key for _ in range(steps) for outcome in engine.step()]
    assert engine.withdraw(["set"]) == ["set"]
    while engine.busy:
        outcomes += [outcome.key for outcome in engine.step()]
    assert outcomes == ["one"]
    assert engine._sets == {}


def test_a_set_that_has_begun_is_not_handed_back_and_not_expired(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny_model, max_batch=2)
    deadline = time.time() + 3600
    engine.add({"begun": set_task(2, 6, deadline=deadline, created=0)})
    engine.step()
    engine.add({"waiting": set_task(2, 6, created=1)})
    assert engine.withdraw_unstarted() == ["waiting"]
    monkeypatch.setattr("worker.engine.engine.steady_time", lambda: deadline + 1)
    outcomes = []
    while engine.busy:
        outcomes += engine.step()
    assert [type(outcome) for outcome in outcomes] == [FinishedSet]


def test_a_set_that_comes_too_late_expires_once(engine: Engine) -> None:
    engine.add({"late": set_task(2, 6, deadline=time.time() - 1)})
    assert engine.step() == [Failure("late", "expired", "the deadline passed before it could start")]
    assert not engine.busy


def test_a_set_fails_once_when_one_of_its_images_does(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=4)
    engine.add({"broken": set_task(3, 6), "sound": image_task(seed=50)})
    outcomes = []
    while engine.busy:
        chosen = [row for row in engine._rows.values() if row.owner and row.step == 3]
        for row in chosen[:2]:
            row.latents = torch.full((4, 16, 16), float("nan"))
        outcomes += engine.step()
    assert {outcome.key for outcome in outcomes} == {"broken", "sound"}
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert failures == [Failure("broken", "error", "the image came out as NaN or infinity")]
    assert engine._sets == {}


def test_a_sampler_of_one_step_chooses_too() -> None:
    contract = tiny_pipelines.contract(steps=1, sigmas=[1.0, 0.0])
    engine = Engine(served("one-step", "ab", contract, tiny_pipelines.build()), max_batch=2)
    assert len(finished_set(engine, set_task(5, 7)).pictures) == 5


def test_its_images_share_the_work_for_the_candidates_that_drop_out(tiny_model: LoadedModel) -> None:
    engine, spent = Engine(tiny_model, 8), []
    engine.runner.measure = lambda measured: spent.append(measured.seconds)
    engine.add({"set": set_task(2, 6), "alone": image_task()})
    work = []
    while engine.busy:
        for outcome in engine.step():
            pictures = outcome.pictures if isinstance(outcome, FinishedSet) else [outcome]
            work += [picture.work_s for picture in pictures]
    assert len(work) == 3
    assert sum(work) == pytest.approx(sum(spent))
