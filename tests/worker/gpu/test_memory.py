"""The memory of a device as a plan: graphs share it, decoding does not limit the step, embeddings have their part."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.gpu.stand_in_device import OUT_OF_MEMORY, Stage, StandInDevice
from tests.worker.tasks import image_task, pictures, run
from worker.device import accelerator
from worker.engine.cuda_graphs import CudaGraphs
from worker.engine.denoising_step import StepOutputs
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure, Measured, Picture
from worker.engine.scheduler import Candidate, StepTimes
from worker.model_folder.loading import LoadedModel

ROW = 1 << 30
"""Bytes, far more than the embeddings of the tiny model take."""


def test_d_all_captures_are_on_one_stream_and_from_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two streams share no memory, whatever their pool."""
    captures = _calls_of_torch_cuda(monkeypatch)
    new_graph = CudaGraphs(torch.device("cuda"))
    graphs = [new_graph() for _ in range(3)]
    for graph in graphs:
        graph.capture(lambda: StepOutputs(torch.zeros(1), torch.zeros(1)))
    assert len(captures) == 3
    assert len({id(capture["stream"]) for capture in captures}) == 1
    assert len({id(capture["pool"]) for capture in captures}) == 1
    del graph, graphs
    new_graph().capture(lambda: StepOutputs(torch.zeros(1), torch.zeros(1)))
    assert captures[3]["pool"] is not captures[0]["pool"]  # which is not taken again when its graphs are gone


def _calls_of_torch_cuda(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    captures: list[dict[str, Any]] = []

    class Stream(SimpleNamespace):
        def __init__(self, device: Any = None) -> None:
            super().__init__()

        def wait_stream(self, other: Any) -> None:
            pass

    class Context:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            if named:
                captures.append(named)

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    for name, stand_in in {
        "Stream": Stream, "current_stream": lambda device: Stream(), "stream": Context, "graph": Context,
        "CUDAGraph": object, "graph_pool_handle": object,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return captures


def test_a_capture_whose_end_finds_no_memory_leaves_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself torch.cuda.graph stays on its stream when it raises on its way out, as without memory for the graph."""
    _calls_of_torch_cuda(monkeypatch)
    current: list[object] = ["serving"]

    @contextmanager
    def on(stream: object) -> Iterator[None]:
        before, current[0] = current[0], stream
        try:
            yield
        finally:
            current[0] = before

    @contextmanager
    def recording(*graph: object, stream: object, **more: object) -> Iterator[None]:
        current[0] = stream
        yield
        raise OUT_OF_MEMORY["driver"]("out of memory")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(wait_stream=lambda other: None))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    with pytest.raises(torch.AcceleratorError):
        CudaGraphs(torch.device("cuda"))().capture(lambda: StepOutputs(torch.zeros(1), torch.zeros(1)))
    assert current == ["serving"]


def test_no_thread_gives_memory_back_while_a_graph_is_recorded(
    gpu: StandInDevice, one_size: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch refuses that with an error: on the thread of the safety model it would end the worker."""
    begin, threads = gpu.run, list[Thread]()

    def run(stage: Stage, rows: int) -> None:
        if gpu.graphs.capturing:
            threads.append(Thread(target=accelerator.free_memory, args=[torch.device("cpu")]))
            threads[-1].start()
            threads[-1].join(0.2)  # as long as an error would need
        begin(stage, rows)

    monkeypatch.setattr(gpu, "run", run)
    Engine(one_size, 1, gpu.graphs).warm_up()
    for thread in threads:
        thread.join()
    assert len(threads) == 1
    assert gpu.graphs.faults == []


def _as_many_as_fit(candidates: Sequence[Candidate], step_times: StepTimes, backlogged: bool) -> list[str]:
    return [row.key for row in candidates][: max(step_times[64, 64])]


def test_e_decoding_that_needs_more_memory_than_a_step_does_not_limit_it(
    gpu: StandInDevice, one_size: LoadedModel
) -> None:
    gpu.memory, gpu.row_bytes = 16.5 * ROW, {"encode": ROW, "predict": ROW, "decode": 3 * ROW}
    engine = Engine(one_size, 8, gpu.graphs, policy=_as_many_as_fit)
    engine.warm_up()
    assert [rows for rows, *_ in gpu.graphs.captured] == [8, 6, 4, 3, 2, 1]
    assert sorted(engine.step_times[64, 64]) == [1, 2, 3, 4, 6, 8]
    assert engine.runner.strict_batch[64, 64] == 8
    gpu.runs.clear()
    tasks = [image_task("sun", seed) for seed in range(8)]
    made = pictures(engine, tasks)
    assert {picture.bucket for picture in made} == {8}
    assert [rows for stage, rows in gpu.runs if stage == "decode"] == [2, 2, 2, 2]
    for ours, whole in zip(made, pictures(Engine(one_size, 8), tasks), strict=True):
        assert np.abs(ours.pixels.astype(int) - whole.pixels).max() <= 1


@pytest.mark.parametrize("found_by", OUT_OF_MEMORY)
def test_batches_that_do_not_fit_at_warm_up_are_left_out_whoever_finds_that(
    gpu: StandInDevice, one_size: LoadedModel, found_by: str
) -> None:
    gpu.memory, gpu.row_bytes["predict"], gpu.row_bytes["decode"] = 8.5 * ROW, ROW, 2 * ROW
    gpu.memory_error = OUT_OF_MEMORY[found_by]
    engine = Engine(one_size, 8, gpu.graphs)
    engine.warm_up()
    assert max(engine.step_times[64, 64]) == 4
    assert engine.runner.decoding.most((64, 64), 4) == 2
    assert len(pictures(engine, [image_task("sun", seed) for seed in range(8)])) == 8


def test_the_graph_of_a_batch_that_is_left_out_takes_no_memory(gpu: StandInDevice, one_size: LoadedModel) -> None:
    gpu.memory, gpu.row_bytes = 7.5 * ROW, {"encode": 0, "predict": ROW, "decode": 3 * ROW}
    engine = Engine(one_size, 8, gpu.graphs, policy=_as_many_as_fit)
    engine.warm_up()
    assert max(engine.step_times[64, 64]) == engine.runner.strict_batch[64, 64] == 4
    assert gpu.pool == 4 * ROW
    assert len(pictures(engine, [image_task("sun", seed) for seed in range(8)])) == 8


def test_e_decoding_that_runs_out_of_memory_while_serving_leaves_the_step_as_it_was(
    gpu: StandInDevice, one_size: LoadedModel
) -> None:
    engine = Engine(one_size, 8, gpu.graphs, policy=_as_many_as_fit)
    engine.warm_up()
    gpu.memory, gpu.row_bytes["decode"] = 8 * ROW, 2 * ROW
    for _ in range(2):
        gpu.runs.clear()
        made = pictures(engine, [image_task("sun", seed) for seed in range(8)])
        assert {picture.bucket for picture in made} == {8}
        assert [rows for stage, rows in gpu.runs if stage == "decode"] == [4, 4]
    assert len(gpu.out_of_memory) == 1
    assert max(engine.step_times[64, 64]) == 8


def test_e_strict_rows_are_always_decoded_as_many_at_once(gpu: StandInDevice, one_size: LoadedModel) -> None:
    """Whatever ran out of memory since the warm-up: else their bits would change."""
    gpu.memory, gpu.row_bytes["decode"] = 16.5 * ROW, 4 * ROW
    engine = Engine(one_size, 8, gpu.graphs, policy=_as_many_as_fit)
    engine.warm_up()
    tasks = [image_task("sun", seed, mode="strict") for seed in range(5)]
    before = pictures(engine, tasks)
    engine.runner.decoding.halve((64, 64), 4)
    gpu.runs.clear()
    after = pictures(engine, tasks)
    assert [rows for stage, rows in gpu.runs if stage == "decode"] == [4, 4]
    pictures(engine, [image_task("sun", seed) for seed in range(3)])
    assert [rows for stage, rows in gpu.runs if stage == "decode"][2:] == [2, 1]
    assert all(np.array_equal(early.pixels, late.pixels) for early, late in zip(before, after, strict=True))


def test_e_the_share_of_decoding_in_a_steps_time_is_that_of_all_parts(
    gpu: StandInDevice, one_size: LoadedModel
) -> None:
    gpu.memory, gpu.row_bytes["decode"] = 8.5 * ROW, 4 * ROW
    engine = Engine(one_size, 4, gpu.graphs, policy=_as_many_as_fit)
    engine.warm_up()
    measured: list[Measured] = []
    engine.runner.measure = measured.append
    made = pictures(engine, [image_task("sun", seed) for seed in range(4)])
    (decoding,) = [cost for cost in measured if cost.stage == "decode"]
    assert (decoding.rows, decoding.padding) == (4, 0)
    assert {picture.seconds["decode"] for picture in made} == {decoding.seconds}


@pytest.mark.parametrize("stage", ["encode", "predict", "decode"])
def test_a_step_that_runs_out_of_memory_is_made_by_smaller_ones(
    gpu: StandInDevice, one_size: LoadedModel, stage: str
) -> None:
    engine = Engine(one_size, 8, policy=_as_many_as_fit)
    engine.warm_up()
    gpu.memory, gpu.row_bytes[stage] = 4 * ROW, ROW  # type: ignore[index]
    tasks = [image_task(f"sun {seed}", seed) for seed in range(8)]
    assert len(pictures(engine, tasks)) == 8
    assert max(engine.step_times[64, 64]) == (4 if stage == "predict" else 8)


@pytest.mark.parametrize("mode", ["fast", "strict"])
@pytest.mark.parametrize("stage", ["encode", "predict", "decode"])
def test_memory_that_the_compiler_takes_for_a_moment_fails_no_picture(
    gpu: StandInDevice, one_size: LoadedModel, stage: Stage, mode: str
) -> None:
    engine = Engine(one_size, 4)
    engine.warm_up()
    fits, engine.isolation.shares_memory = engine.step_times[64, 64], True
    gpu.row_bytes[stage], gpu.memory = ROW, 0
    task = image_task("another sun", mode=mode)
    engine.add({"0": task})
    for _ in range(8):
        assert engine.step() == []
    assert {tried for tried, _ in gpu.out_of_memory} == {stage}
    gpu.memory = 8 * ROW
    while engine.busy:
        outcomes = engine.step()
    assert [outcome.key for outcome in outcomes] == ["0"]
    assert isinstance(outcomes[0], Picture)
    assert engine.step_times[64, 64].keys() == fits.keys()
    assert engine.runner.decoding.most((64, 64), 4) == 4
    engine.end_compiling()
    gpu.memory = 0
    assert isinstance(run(engine, [image_task("yet another sun", mode=mode)])["0"], Failure)


def test_a_picture_that_cannot_be_decoded_alone_fails_and_the_next_is_made(
    gpu: StandInDevice, one_size: LoadedModel
) -> None:
    engine = Engine(one_size, 4, gpu.graphs)
    engine.warm_up()
    gpu.memory, gpu.row_bytes["decode"] = 8 * ROW, 9 * ROW
    outcomes = run(engine, [image_task("sun", seed) for seed in range(3)])
    assert all(isinstance(outcome, Failure) for outcome in outcomes.values())
    gpu.memory = 9 * ROW
    assert len(pictures(engine, [image_task("sun", seed) for seed in range(3)])) == 3
