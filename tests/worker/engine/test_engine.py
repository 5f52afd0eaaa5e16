"""Rows join and leave, each gets its own picture, and a bad one fails alone."""

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from tests.worker.tasks import image_task, pictures, run
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure, Measured, Picture
from worker.families.prompt_embeddings import PromptEmbedding
from worker.generate import generate
from worker.model_folder.loading import LoadedModel, served
from worker.sampling.step_table import flow_table
from worker.testing import tiny_pipelines

PROMPTS = ["a red cat", "sad big dog", "sun", "heart", "small blue face", "", "green", "a smiling sun"]


@pytest.mark.slow
def test_every_row_gets_the_picture_of_its_own_seed_and_prompt(tiny_model: LoadedModel) -> None:
    tasks = [
        image_task(prompt, seed, height=height) for prompt in PROMPTS[:4] for seed in (0, 1) for height in (64, 32)
    ]
    solo = Engine(tiny_model, max_batch=1)
    alone = [pictures(solo, [task])[0].pixels.astype(int) for task in tasks]
    together = [picture.pixels.astype(int) for picture in pictures(Engine(tiny_model, max_batch=8), tasks)]
    for position, pixels in enumerate(together):
        assert pixels.shape == (tasks[position].height, 64, 3)
        distances = [np.abs(pixels - other).max() if pixels.shape == other.shape else np.inf for other in alone]
        assert distances[position] <= 1
        assert np.argmin(distances) == position
        assert sorted(distances)[1] > 4


def test_a_late_row_joins_at_the_next_step_and_leaves_after_its_own_last(engine: Engine) -> None:
    measured: list[Measured] = []
    engine.runner.measure = measured.append
    engine.add({"first": image_task(seed=1)})
    assert engine.step() == []
    assert engine.step() == []
    engine.add({"late": image_task(seed=2)})
    left = [[outcome.key for outcome in engine.step()] for _ in range(4)]
    assert left == [[], ["first"], [], ["late"]]
    assert not engine.busy
    assert [cost.rows for cost in measured if cost.stage == "denoise_step"] == [1, 1, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("mode", "is_compiled", "padding"),
    [("fast", False, 0), ("fast", True, 1), ("strict", False, 3), ("strict", True, 3)],
)
def test_batches_are_padded_to_buckets_where_that_buys_something(
    tiny_model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    mode: Literal["fast", "strict"],
    is_compiled: bool,
    padding: int,
) -> None:
    measured: list[Measured] = []
    engine = Engine(tiny_model, max_batch=8)
    engine.runner.measure = measured.append
    if is_compiled:
        monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: None)  # minutes, of no concern here
        engine.switch(engine.runner.new_compiled())
    made = pictures(engine, [image_task(seed=seed, mode=mode) for seed in range(5)])
    assert {picture.bucket for picture in made} == {5 + padding}
    added = {cost.stage: cost.padding for cost in measured}
    assert added == {"encode": 0, "denoise_step": padding, "decode": padding}


def test_a_prompt_that_waits_is_encoded_along(tiny_model: LoadedModel) -> None:
    measured: list[Measured] = []
    engine = Engine(tiny_model, max_batch=2)
    engine.runner.measure = measured.append
    engine.add({str(seed): image_task("sun", seed) for seed in range(2)} | {"waits": image_task("heart", 2)})
    engine.step()
    encoded = [(cost.rows, cost.cached) for cost in measured if cost.stage == "encode"]
    assert encoded == [(2, 1)]
    while engine.busy:
        engine.step()
    assert [(cost.rows, cost.cached) for cost in measured if cost.stage == "encode"] == [*encoded, (1, 1)]


@pytest.mark.step_times
@pytest.mark.slow
@pytest.mark.parametrize("per_prompt_s", [0.0, 0.02])
def test_prompts_are_encoded_along_where_that_costs_little(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, per_prompt_s: float
) -> None:
    """By a clock that only the text encoders move."""
    encode, seconds = tiny_model.network.encode, 0.0

    def slow(prompts: Sequence[str]) -> list[PromptEmbedding]:
        nonlocal seconds
        seconds += 0.02 + per_prompt_s * len(prompts)
        return encode(prompts)

    clock = SimpleNamespace(time=time.time, perf_counter=lambda: seconds)
    for timed in ("model_runner", "step_times.rehearsal"):
        monkeypatch.setattr(f"worker.engine.{timed}.time", clock)
    monkeypatch.setattr(tiny_model.network, "encode", slow)
    engine = Engine(tiny_model, max_batch=8)
    engine.warm_up()
    assert engine.runner.prompts.fill_to == (0 if per_prompt_s else 8)


def test_a_repeated_prompt_is_not_encoded_again(engine: Engine) -> None:
    measured: list[Measured] = []
    engine.runner.measure = measured.append
    pictures(engine, [image_task("sun", seed=1), image_task("sun", seed=2)])
    pictures(engine, [image_task("sun", seed=3), image_task("heart", seed=3)])
    assert [(cost.rows, cost.cached) for cost in measured if cost.stage == "encode"] == [(2, 1), (2, 1)]


def test_guidance_is_applied() -> None:
    model = served("tiny", "ab", tiny_pipelines.contract(guidance_scale=3.0), tiny_pipelines.build())
    guided = generate(Engine(model, 2), ["sun"], [5])
    plain = served("tiny", "ab", tiny_pipelines.contract(), tiny_pipelines.build())
    assert np.abs(guided.astype(int) - generate(Engine(plain, 2), ["sun"], [5])).max() > 1
    theirs = tiny_pipelines.build()(
        "sun",
        sigmas=[1.0, 0.75, 0.5, 0.25],
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        height=64,
        width=64,
        max_sequence_length=tiny_pipelines.TOKENS,
        output_type="np",
    ).images
    assert np.abs(guided - (theirs * 255).round()).max() <= 1


def test_latents_that_are_not_finite_are_an_error_and_no_black_image(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=4)
    engine.add({"sound": image_task(seed=1), "broken": image_task(seed=2)})
    engine.step()
    engine._rows["broken"].latents = torch.full((4, 16, 16), float("nan"))
    outcomes = {outcome.key: outcome for _ in range(3) for outcome in engine.step()}
    assert isinstance(outcomes["sound"], Picture)
    assert outcomes["broken"] == Failure("broken", "error", "the image came out as NaN or infinity")


def test_warm_up_refuses_a_model_that_gives_nan() -> None:
    pipeline = tiny_pipelines.build()
    pipeline.transformer.proj_out.weight[0, 0] = float("nan")
    engine = Engine(served("nan", "ab", tiny_pipelines.contract(), pipeline), max_batch=2)
    with pytest.raises(RuntimeError, match="NaN"):
        engine.warm_up()


def test_a_row_whose_deadline_passed_never_runs(engine: Engine) -> None:
    measured: list[Measured] = []
    engine.runner.measure = measured.append
    outcomes = run(engine, [image_task(deadline=time.time() - 1)])
    assert isinstance(outcomes["0"], Failure)
    assert outcomes["0"].reason == "expired"
    assert measured == []


def test_a_row_that_has_begun_is_finished_after_its_deadline(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = time.time() + 3600
    engine.add({"begun": image_task(deadline=deadline)})
    engine.step()
    monkeypatch.setattr("worker.engine.engine.steady_time", lambda: deadline + 1)
    outcomes = [outcome for _ in range(3) for outcome in engine.step()]
    assert isinstance(outcomes[0], Picture)


def test_rows_are_withdrawn_begun_or_not_and_others_stay(engine: Engine) -> None:
    engine.add({name: image_task(seed=1) for name in ("begun", "kept")})
    engine.step()
    engine.add({"waiting": image_task(seed=2)})
    assert engine.withdraw(["begun", "waiting", "unknown"]) == ["begun", "waiting"]
    assert [outcome.key for _ in range(3) for outcome in engine.step()] == ["kept"]
    assert not engine.busy


def test_only_rows_that_have_not_begun_can_be_withdrawn(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=2)
    engine.add({str(number): image_task(seed=number, created=number) for number in range(5)})
    engine.step()
    assert sorted(engine.withdraw_unstarted()) == ["2", "3", "4"]
    outcomes = [outcome.key for _ in range(3) for outcome in engine.step()]
    assert sorted(outcomes) == ["0", "1"]
    assert not engine.busy


def test_other_grids_are_sampled_as_the_contract_says() -> None:
    sigmas = [1.0, 0.6, 0.0]
    contract = tiny_pipelines.contract(steps=2, sigmas=sigmas)
    model = served("two-steps", "ab", contract, tiny_pipelines.build())
    assert torch.equal(model.table.b, flow_table(sigmas).b)
    engine = Engine(model, max_batch=1)
    engine.add({"it": image_task()})
    assert engine.step() == []
    assert [outcome.key for outcome in engine.step()] == ["it"]
