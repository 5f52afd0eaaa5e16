"""A batch that fails, or does not fit into memory, is halved until only what cannot work alone has failed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.tasks import image_task, pictures, run
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure, Measured, Picture
from worker.families.prompt_embeddings import PromptEmbedding
from worker.model_folder.loading import LoadedModel


@contextmanager
def _denoiser(model: LoadedModel, check: Callable[[torch.Tensor, torch.Tensor], None]) -> Iterator[None]:
    """`check` is given the latents and the pooled embeddings of every batch, and may raise."""

    def hook(module: torch.nn.Module, arguments: Any, named: dict[str, Any]) -> None:
        check(named["hidden_states"], named["pooled_projections"])

    handle = model.network.pipeline.transformer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _memory_for(model: LoadedModel, rows: int, height: int = 16) -> Iterator[list[int]]:
    """Latents `height` rows high run out of memory in batches above `rows`; yields the batches that were tried."""
    tried: list[int] = []

    def check(latents: torch.Tensor, pooled: torch.Tensor) -> None:
        tried.append(len(latents))
        if len(latents) > rows and latents.shape[2] == height:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with _denoiser(model, check):
        yield tried


def _steps(engine: Engine) -> list[int]:
    """The batch sizes of the denoising steps from now on."""
    sizes: list[int] = []

    def note(measured: Measured) -> None:
        if measured.stage == "denoise_step":
            sizes.append(measured.rows + measured.padding)

    engine.runner.measure = note
    return sizes


def test_a_poisonous_row_fails_alone(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=8)
    tasks = [image_task(prompt, seed=1) for prompt in ("sun", "heart", "poison", "big dog", "cat", "red")]
    poison = engine.runner.prompts.get(["poison"], strict=False)[0].pooled
    tried: list[int] = []

    def check(latents: torch.Tensor, pooled: torch.Tensor) -> None:
        tried.append(len(latents))
        if (pooled == poison).all(1).any():
            raise RuntimeError("no such thing")

    with _denoiser(tiny_model, check):
        outcomes = run(engine, tasks)
    assert outcomes.pop("2") == Failure("2", "error", "RuntimeError: no such thing")
    for position, outcome in outcomes.items():
        assert isinstance(outcome, Picture)
        alone = pictures(engine, [tasks[int(position)]])[0]
        assert np.abs(outcome.pixels.astype(int) - alone.pixels).max() <= 1
    # All six, the half with the poison, the poison alone; the rows beside it go on.
    assert tried[:4] == [6, 3, 1, 2]
    assert len(engine.step_times[64, 64]) == 6


def test_a_batch_that_memory_does_not_hold_is_halved_and_remembered(
    tiny_model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(tiny_model, max_batch=8)
    alone = pictures(engine, [image_task("sun", seed) for seed in range(8)])
    with _memory_for(tiny_model, rows=3) as tried:
        outcomes = run(engine, [image_task("sun", seed) for seed in range(8)])
        assert tried[:7] == [8, 4, 2, 2, 4, 2, 2]
        assert max(tried[7:]) == 3
    assert "batches of at most 3" in caplog.text
    for position, expected in enumerate(alone):
        outcome = outcomes[str(position)]
        assert isinstance(outcome, Picture)
        assert np.abs(outcome.pixels.astype(int) - expected.pixels).max() <= 1


def test_other_sizes_keep_their_batches(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=4)
    with _memory_for(tiny_model, rows=2):
        pictures(engine, [image_task("sun", seed) for seed in range(4)])
        steps = _steps(engine)
        pictures(engine, [image_task("sun", seed, height=32) for seed in range(4)])
    assert steps == [4] * 4


def test_what_does_not_fit_alone_fails_and_the_next_is_served(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=4)
    with _memory_for(tiny_model, rows=0):
        outcomes = run(engine, [image_task("sun", seed) for seed in range(3)])
    assert set(outcomes.values()) == {
        Failure(str(n), "error", "OutOfMemoryError: CUDA out of memory") for n in range(3)
    }
    assert len(pictures(engine, [image_task("sun", seed) for seed in range(3)])) == 3


def test_a_strict_image_keeps_its_batch_size_or_fails(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=4)
    with _memory_for(tiny_model, rows=2):
        outcomes = run(engine, [image_task("sun", 1, mode="strict"), image_task("sun", 2)])
    assert isinstance(outcomes["0"], Failure)
    assert isinstance(outcomes["1"], Picture)
    assert run(engine, [image_task("sun", 1, mode="strict")])["0"].bucket == 4  # type: ignore[union-attr]


def test_warm_up_leaves_out_the_batches_that_memory_does_not_hold(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=8)
    with _memory_for(tiny_model, rows=4):
        engine.warm_up()
        assert [list(times) for times in engine.step_times.values()] == [[*range(1, 5)], [*range(1, 9)]]
        steps = _steps(engine)
        pictures(engine, [image_task("sun", seed, mode="strict") for seed in range(3)])
    assert steps == [4] * 4


def test_what_the_text_encoders_do_not_hold_is_not_encoded_along(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = tiny_model.network.encode

    def encode_few(prompts: Sequence[str]) -> list[PromptEmbedding]:
        if len(prompts) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(prompts)

    monkeypatch.setattr(tiny_model.network, "encode", encode_few)
    engine = Engine(tiny_model, max_batch=8)
    engine.warm_up()
    assert max(engine.step_times[64, 64]) == 4
    assert engine.runner.prompts.fill_to <= 4
    assert len(pictures(engine, [image_task(f"sun {seed}", seed) for seed in range(8)])) == 8


def test_compiled_code_is_planned_by_the_sizes_it_is_made_for(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: None)  # minutes, of no concern here
    engine = Engine(tiny_model, max_batch=8)
    engine.warm_up()
    engine.switch(engine.runner.new_compiled())
    assert [list(times) for times in engine.step_times.values()] == [[1, 2, 3, 4, 6, 8]] * 2


@pytest.mark.step_times
def test_warm_up_measures_every_batch_size(tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock whose seconds become longer each time it is read."""
    readings = accumulate(count(1))
    monkeypatch.setattr(
        "worker.engine.model_runner.time", SimpleNamespace(time=lambda: 0.0, perf_counter=lambda: float(next(readings)))
    )
    engine = Engine(tiny_model, max_batch=4)
    assert {seconds for times in engine.step_times.values() for seconds in times.values()} == {0.001}
    engine.warm_up()
    assert [list(times) for times in engine.step_times.values()] == [[1, 2, 3, 4]] * 2
    measured = [seconds for times in engine.step_times.values() for seconds in times.values()]
    assert all(seconds > 1 for seconds in measured)
    assert len(set(measured)) == len(measured)
