"""While a step runs on a device of its own, the host plans the next one and takes tasks in."""

import gc
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.worker.gpu.stand_in_device import StandInDevice
from tests.worker.tasks import image_task, pictures
from worker.device import accelerator
from worker.engine import engine as engine_module
from worker.engine import model_runner
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure, Picture
from worker.engine.row import Row
from worker.engine.scheduler import Candidate, StepTimes, schedule
from worker.model_folder.loading import LoadedModel

STEPS, STEP_S = 400, 1.0
OUT_OF_MEMORY = torch.AcceleratorError("CUDA error: out of memory")
OUT_OF_MEMORY.error_code = accelerator.OUT_OF_MEMORY


@pytest.fixture
def engine(gpu: StandInDevice, one_size: LoadedModel) -> Engine:
    engine = Engine(one_size, 2, gpu.graphs)
    engine.warm_up()
    gpu.runs.clear()
    return engine


def _once(action: Callable[[], object]) -> Callable[[float], bool]:
    """Take `action` in during the first step, and nothing more."""
    waiting = [action]

    def await_task(until: float) -> bool:
        if not waiting:
            return False
        waiting.pop()()
        return True

    return await_task


def test_a_task_that_comes_while_a_step_runs_is_planned_before_its_end_and_joins_the_next(
    gpu: StandInDevice, one_size: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []

    def policy(candidates: Sequence[Candidate], times: StepTimes, backlogged: bool) -> list[str]:
        events.append(f"{len(candidates)} to choose from")
        return schedule(candidates, times, backlogged)

    engine = Engine(one_size, 2, gpu.graphs, policy)
    engine.warm_up()
    monkeypatch.setattr(gpu, "run", lambda stage, rows: events.append((stage, rows)))
    monkeypatch.setattr(accelerator, "wait_for", lambda device: events.append("wait"))
    engine.add({"0": image_task("sun")})
    engine.await_task = _once(lambda: engine.add({"1": image_task("a small blue heart", 1)}))
    engine.step()
    engine.step()
    one, two = "1 to choose from", "2 to choose from"
    assert events == [
        *(one, ("encode", 1), ("predict", 1), one, two, "wait"),
        *(("encode", 1), ("predict", 2), two, "wait"),
    ]


def test_between_two_steps_nothing_is_planned_and_no_input_is_made(
    gpu: StandInDevice, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.add({"0": image_task(), "1": image_task(seed=1)})
    engine.step()
    gpu.runs.clear()
    monkeypatch.setattr(engine.runner, "padded", None)
    monkeypatch.setattr(engine, "_plan", lambda: [])  # of the step after that
    engine.step()
    assert gpu.runs == [("predict", 2)]


def test_a_task_that_is_withdrawn_while_its_step_runs_takes_no_other(gpu: StandInDevice, engine: Engine) -> None:
    engine.add({"0": image_task(), "1": image_task(seed=1)})
    withdrawn: list[str] = []
    engine.await_task = _once(lambda: withdrawn.extend(engine.withdraw(["0"])))
    engine.step()
    outcomes = [outcome for _ in range(3) for outcome in engine.step()]
    assert withdrawn == ["0"]
    assert [outcome.key for outcome in outcomes if isinstance(outcome, Picture)] == ["1"]
    assert [rows for stage, rows in gpu.runs if stage == "predict"] == [2, 1, 1, 1]


def test_a_step_that_fails_when_it_is_waited_for_has_moved_no_row(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [image_task(), image_task("sun", 1)]
    expected = pictures(engine, tasks)
    failures, wait_for = [OUT_OF_MEMORY], accelerator.wait_for
    monkeypatch.setattr(
        accelerator, "wait_for", lambda device: _raise(failures.pop()) if failures else wait_for(device)
    )
    engine.isolation.shares_memory = True  # so that it is tried again
    for one, other in zip(expected, pictures(engine, tasks), strict=True):
        assert not failures
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1


def test_a_row_that_fails_alone_when_it_is_waited_for_steps_again_from_what_it_had(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = pictures(engine, [image_task()])
    failures = [OUT_OF_MEMORY]
    monkeypatch.setattr(accelerator, "wait_for", lambda device: _raise(failures.pop()) if failures else None)
    engine.isolation.shares_memory = True  # so that it is tried again
    (picture,) = pictures(engine, [image_task()])
    assert not failures
    assert np.array_equal(picture.pixels, expected.pixels)


def test_a_step_whose_outputs_cannot_all_be_taken_has_moved_no_row(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [image_task(), image_task("sun", 1)]
    expected = pictures(engine, tasks)
    failures, advance = [OUT_OF_MEMORY], Row.advance  # in the last step

    def fails_once(row: Row, latents: torch.Tensor, pred_x0: torch.Tensor) -> None:
        if row.key == "1" and row.step == 3 and failures:
            raise failures.pop()
        advance(row, latents, pred_x0)

    monkeypatch.setattr(Row, "advance", fails_once)
    for one, other in zip(expected, pictures(engine, tasks), strict=True):
        assert not failures
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1


def test_a_task_that_was_withdrawn_during_a_step_that_fails_is_not_reported_as_failed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.add({"0": image_task()})
    engine.await_task = _once(lambda: engine.withdraw(["0"]))
    monkeypatch.setattr(accelerator, "wait_for", lambda device: _raise(RuntimeError("a kernel failed")))
    monkeypatch.setattr(engine.isolation, "raise_if_lost", lambda error: None)
    assert engine.step() == []


def test_a_task_whose_deadline_passes_after_it_was_planned_does_not_start(
    gpu: StandInDevice, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = image_task(seed=1)
    late = late.model_copy(update={"deadline": late.created + 60})
    monkeypatch.setattr(engine_module, "steady_time", lambda: late.created)
    engine.add({"0": image_task()})
    engine.await_task = _once(lambda: engine.add({"1": late}))
    engine.step()
    monkeypatch.setattr(engine_module, "steady_time", lambda: late.created + 61)
    (failure,) = engine.step()
    assert isinstance(failure, Failure)
    assert (failure.key, failure.reason) == ("1", "expired")
    assert [rows for stage, rows in gpu.runs if stage == "predict"] == [1, 1]


def test_an_error_of_the_device_that_the_next_inputs_bring_to_light_is_the_running_steps(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.add({"0": image_task()})
    monkeypatch.setattr(engine.runner, "prepare", lambda rows: _raise(OUT_OF_MEMORY))
    (failure,) = engine.step()
    assert isinstance(failure, Failure)
    assert "out of memory" in failure.detail


@torch.inference_mode()
def test_the_host_never_expects_a_step_to_last_longer_than_the_latest(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, takes=10.0)  # the first step loads libraries
    monkeypatch.setattr(model_runner, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(accelerator, "wait_for", lambda device: _until(clock, clock.now + clock.takes))
    row = Row("0", image_task())
    engine.runner.begin([row])
    waited: list[float] = []
    engine.runner._expected.clear()
    for takes in (10.0, 0.001, 0.001):
        clock.takes, row.step = takes, 0
        engine.runner.denoise([row], lambda until: waited.append(until - clock.now))
    assert waited[-1] < 0.001


def test_an_engine_whose_last_tasks_are_withdrawn_between_two_steps_keeps_nothing_of_them(engine: Engine) -> None:
    engine.add({"0": image_task()})
    row = weakref.ref(next(iter(engine._rows.values())))
    engine.step()
    engine.withdraw(["0"])
    gc.collect()
    assert row() is None


def _raise(error: Exception) -> None:
    raise error


@torch.inference_mode()
@pytest.mark.parametrize("overshoot_s", [0.0, 0.01, 0.3])
def test_the_host_does_not_expect_a_step_to_last_longer_because_it_comes_late(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, overshoot_s: float
) -> None:
    clock = SimpleNamespace(now=0.0, ends=0.0, launched=0.0)
    monkeypatch.setattr(model_runner, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(accelerator, "is_idle", lambda device: clock.now >= clock.ends)
    monkeypatch.setattr(accelerator, "wait_for", lambda device: _until(clock, clock.ends))
    waited: list[float] = []

    def meanwhile(until: float) -> None:
        waited.append(until - clock.now)
        clock.ends = clock.now + STEP_S
        _until(clock, until + overshoot_s)

    row = Row("0", image_task())
    engine.runner.begin([row])
    for _ in range(STEPS):
        row.step = 0
        engine.runner.denoise([row], meanwhile)
    assert max(waited) < STEP_S
    late_s = sum(max(0.0, each + overshoot_s - STEP_S) for each in waited)
    assert late_s < 0.2 * STEPS * STEP_S
    if not overshoot_s:
        assert waited[-1] == pytest.approx(STEP_S - model_runner.LAST_MOMENT_S)


def _until(clock: SimpleNamespace, time: float) -> None:
    clock.now = max(clock.now, time)
