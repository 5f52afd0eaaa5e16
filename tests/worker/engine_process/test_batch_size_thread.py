"""Larger batches beside serving: they are taken for as long as they gain and fit, by a made-up clock."""

from collections.abc import Callable, Iterator

import pytest

from jobs.settings import WorkerSettings
from tests.worker.engine.recorded_graphs import RecordedGraphs
from tests.worker.gpu.stand_in_device import OUT_OF_MEMORY, StandInDevice
from tests.worker.tasks import image_task, pictures
from worker.engine.engine import Engine
from worker.engine.scheduler import Size, buckets
from worker.engine_process.batch_size_thread import BatchSizeThread
from worker.engine_process.device_thread import DeviceThread
from worker.model_folder.loading import LoadedModel
from worker.startup import TRYING, model_card

SIZE = (64, 64)


@pytest.fixture
def device() -> Iterator[DeviceThread]:
    thread = DeviceThread()
    thread.start()
    yield thread
    thread.stop()
    thread.join()


def _grown(device: DeviceThread, engine: Engine, seconds_of: Callable[[Size, int], float]) -> str:
    """Let `engine` grow by the clock `seconds_of`; returns the reason for its largest batch."""
    engine.rehearsal.time = seconds_of  # type: ignore[method-assign]
    for size in engine.step_times:
        engine.rehearsal.set_times(size, {rows: seconds_of(size, rows) for rows in buckets(8)})
    reasons: list[str] = []
    thread = BatchSizeThread(device, engine, reasons.append)
    thread.stop()
    thread.start()
    thread.join()
    (reason,) = reasons
    return reason


@pytest.mark.step_times
def test_batches_grow_for_as_long_as_they_gain(device: DeviceThread, tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, 8)
    reason = _grown(device, engine, lambda size, rows: 0.016 + 0.002 * rows)
    assert max(engine.step_times[SIZE]) == 48
    assert reason == "64 rows would make +3.7% images a second over 48, less than 5%"
    assert engine.step_times[SIZE][40] == pytest.approx(0.096)


@pytest.mark.step_times
def test_where_a_step_costs_its_rows_nothing_larger_is_ever_run(device: DeviceThread, tiny_model: LoadedModel) -> None:
    engine, run = Engine(tiny_model, 8), []

    def seconds_of(size: Size, rows: int) -> float:
        run.append(rows)
        return 0.01 * rows

    _grown(device, engine, seconds_of)
    assert max(run) == 8


def test_what_was_foreseen_wrongly_is_not_taken(device: DeviceThread, tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, 8)
    reason = _grown(device, engine, lambda size, rows: (0.016 + 0.002 * rows) * (2 if rows > 16 else 1))
    assert max(engine.step_times[SIZE]) == 16
    assert reason.startswith("24 rows make -")


@pytest.mark.parametrize("found_by", OUT_OF_MEMORY)
def test_what_does_not_fit_is_not_taken_and_the_worker_serves_on(
    device: DeviceThread, tiny_model: LoadedModel, found_by: str
) -> None:
    engine = Engine(tiny_model, 8)

    def seconds_of(size: Size, rows: int) -> float:
        if rows > 12:
            raise OUT_OF_MEMORY[found_by]("out of memory")
        return 0.016 + 0.002 * rows

    assert _grown(device, engine, seconds_of) == "16 rows do not fit into memory"
    assert max(engine.step_times[SIZE]) == 12
    assert len(pictures(engine, [image_task(seed=seed) for seed in range(12)])) == 12


def test_grown_batches_are_captured_and_padded_to_their_buckets(device: DeviceThread, tiny_model: LoadedModel) -> None:
    graphs = RecordedGraphs()
    engine = Engine(tiny_model, 2, graphs)
    engine.warm_up()
    times = {rows: 0.016 + 0.002 * rows for rows in buckets(4)}
    for rows in (3, 4):
        engine.rehearsal.time(SIZE, rows)
    engine.rehearsal.set_times(SIZE, times)
    measured = []
    engine.runner.measure = measured.append
    engine.timetable.step_times[SIZE] = {4: 0.02}
    pictures(engine, [image_task(seed=seed) for seed in range(3)])
    assert {(cost.rows, cost.padding, cost.replayed) for cost in measured if cost.stage == "denoise_step"} == {
        (3, 0, True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("refused", ["out of memory", "no gain"])
def test_a_refused_batch_leaves_memory_and_strict_images_as_they_were(
    device: DeviceThread, tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Its graph makes the pool larger, which would stay so, and strict rows are always decoded as many at once."""
    gpu = StandInDevice()
    gpu.install(monkeypatch)
    row = 10 << 30
    decode = 12 << 30 if refused == "out of memory" else row  # 8 of them beside a step of 12
    gpu.memory, gpu.row_bytes["predict"], gpu.row_bytes["decode"] = 20.5 * row, row, decode
    engine = Engine(tiny_model, 8, gpu.graphs)
    device.call(engine.warm_up).result()
    assert engine.runner.decoding.most(SIZE, 8) == 8
    tasks = [image_task(seed=seed, mode="strict") for seed in range(3)]
    before = device.call(pictures, engine, tasks).result()
    run = engine.rehearsal.time

    def seconds_of(size: Size, rows: int) -> float:
        if rows > 8:  # with its graph
            run(size, rows)
        return (0.016 + 0.002 * rows) * (2 if rows > 8 else 1)

    reason = _grown(device, engine, seconds_of)
    assert reason.startswith("12 rows do not fit" if refused == "out of memory" else "12 rows make -")
    assert max(rows for rows, *_ in gpu.graphs.captured) == 12
    assert gpu.pool == 8 * row
    assert engine.runner.decoding.most(SIZE, 8) == 8
    after = device.call(pictures, engine, tasks).result()
    assert all((one.pixels == other.pixels).all() for one, other in zip(before, after, strict=True))
    captured = [rows for rows, *_ in gpu.graphs.captured]
    assert set(captured[::-1][: captured[::-1].index(12)]) == set(buckets(8))
    assert gpu.graphs.faults == []


def test_strict_images_keep_their_batch_when_others_grow(device: DeviceThread, tiny_model: LoadedModel) -> None:
    tasks = [image_task(seed=seed, mode="strict") for seed in range(3)]
    before = pictures(Engine(tiny_model, 8), tasks)
    engine = Engine(tiny_model, 8)
    _grown(device, engine, lambda size, rows: 0.016 + 0.002 * rows)
    company = [image_task(seed=100 + seed) for seed in range(20)]
    after = pictures(engine, [*tasks[:1], *company, *tasks[1:]])
    strict = [after[0], *after[-2:]]
    assert [picture.bucket for picture in strict] == [8, 8, 8]
    assert all((one.pixels == other.pixels).all() for one, other in zip(before, strict, strict=True))


@pytest.mark.step_times
def test_a_doubtful_time_is_measured_again(device: DeviceThread, tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, 8)
    engine.rehearsal.time = lambda size, rows: 0.016 + 0.002 * rows  # type: ignore[method-assign]
    for size in engine.step_times:
        engine.rehearsal.set_times(size, {1: 0.018, 2: 0.020, 4: 0.024, 8: 0.288})
    BatchSizeThread(device, engine, print).measure_doubtful()
    assert engine.step_times[SIZE][8] == pytest.approx(0.032)


def test_the_card_says_what_was_chosen_and_why(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, 8)
    first = model_card(engine, WorkerSettings()).settings
    assert (first.max_batch, first.max_batch_reason) == (8, TRYING)
    engine.rehearsal.set_times(SIZE, dict.fromkeys(buckets(12), 0.01))
    later = model_card(engine, WorkerSettings(), "16 rows do not fit into memory").settings
    assert (later.max_batch, later.max_batch_reason) == (12, "16 rows do not fit into memory")
    assert later.strict_batch == 8
    assert model_card(Engine(tiny_model, 2), WorkerSettings(max_batch=2)).settings.max_batch_reason == "as set"
