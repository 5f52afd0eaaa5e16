"""The engine serves by PyTorch until OpenVINO is ready; from then on a picture has the same bits in any batch."""

import copy
import random
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import numpy as np
import pytest
import torch

from jobs.settings import WorkerSettings
from tests.worker.tasks import PROMPTS, image_task, pictures, random_task
from worker.engine.decoded import Advance
from worker.engine.engine import Engine
from worker.engine.executor import Executor
from worker.engine.outcomes import Picture
from worker.engine_process.compile_thread import CompileThread, converted
from worker.engine_process.device_thread import DeviceThread
from worker.families.network import Network
from worker.generate import generate
from worker.model_folder.loading import LoadedModel, served
from worker.startup import model_card
from worker.testing import tiny_pipelines, tiny_sdxl_pipelines

WAIT_S = 500

MODELS = {
    "sd3": (tiny_pipelines.contract(), tiny_pipelines.build),
    "sdxl with guidance": (tiny_sdxl_pipelines.contract(guidance_scale=3.0), tiny_sdxl_pipelines.build),
}

Ready = tuple[LoadedModel, Executor]


@pytest.fixture(scope="module", params=MODELS)
def ready(request: pytest.FixtureRequest) -> Ready:
    """A model and its executor in OpenVINO, which any engine of this model can switch to."""
    contract, build = MODELS[request.param]
    model = served("tiny", "ab", contract, build())
    first = Engine(model, 4)
    return model, converted(first, first.rehearsal.examples())


@pytest.fixture
def device() -> Iterator[DeviceThread]:
    thread = DeviceThread()
    thread.start()
    yield thread
    thread.stop()
    thread.join()


def _switched(ready: Ready) -> Engine:
    model, executor = ready
    engine = Engine(model, 4)
    engine.switch(executor)
    return engine


@pytest.mark.slow
def test_pictures_are_those_of_pytorch(ready: Ready) -> None:
    eager = generate(Engine(ready[0], 4), PROMPTS, range(len(PROMPTS))).astype(int)
    assert np.abs(generate(_switched(ready), PROMPTS, range(len(PROMPTS))) - eager).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("start", range(2))
def test_every_picture_has_its_bits_in_any_company_and_nothing_is_padded(ready: Ready, start: int) -> None:
    assert ready[1].batch_invariant
    dice = random.Random(start)
    tasks = {str(number): random_task(dice) for number in range(40)}
    alone = {key: pictures(_switched(ready), [task])[0] for key, task in tasks.items()}
    engine, keys, padding, buckets = _switched(ready), list(tasks), 0, set()

    def count(measured) -> None:  # type: ignore[no-untyped-def]
        nonlocal padding
        padding += measured.padding
        buckets.add(measured.rows)

    engine.runner.measure = count
    while keys or engine.busy:
        while keys and (not engine.busy or dice.random() < 0.6):
            key = keys.pop()
            engine.add({key: tasks[key]})
        for outcome in engine.step():
            assert isinstance(outcome, Picture)
            assert np.array_equal(outcome.pixels, alone[outcome.key].pixels)
    assert padding == 0
    assert len(buckets) > 2


@pytest.mark.slow
def test_strict_rows_wait_for_the_switch_and_fast_ones_do_not(
    device: DeviceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, converted_network = threading.Event(), threading.Event(), Network.converted

    def held(network: Network) -> Network:
        begun.set()
        assert go_on.wait(WAIT_S)
        return converted_network(network)

    monkeypatch.setattr(Network, "converted", held)
    engine, delivered = Engine(_one_size(), 2), SimpleQueue[Advance]()
    thread = CompileThread(device)
    thread.compile(engine, "openvino")
    device.serve(engine, delivered.put)
    assert begun.wait(WAIT_S)
    device.call(engine.add, {"strict": image_task("sun", 1, mode="strict"), "fast": image_task("sun", 1)}).result()
    assert [outcome.key for outcome in delivered.get(timeout=WAIT_S).outcomes()] == ["fast"]
    assert not device.call(lambda: engine.busy).result()
    go_on.set()
    while thread.is_alive():  # images are made while it converts
        device.call(engine.add, {"meanwhile": image_task("sun", 1)}).result()
        _until(delivered, "meanwhile")
        thread.join(0.1)
    assert engine.runner.executor.batch_invariant
    device.call(engine.add, {"again": image_task("sun", 1, mode="strict")}).result()
    after = _until(delivered, "again")
    assert np.array_equal(_until(delivered, "strict").pixels, after.pixels)


@pytest.mark.slow
def test_a_conversion_that_fails_is_one_line_and_strict_rows_go_on_in_pytorch(
    device: DeviceThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(network: Network) -> Network:
        raise ModuleNotFoundError("No module named 'openvino'")

    monkeypatch.setattr(Network, "converted", fails)
    engine, told = Engine(_one_size(), 2), threading.Event()
    assert model_card(engine, WorkerSettings()).settings.runtime == "openvino"
    thread = CompileThread(device)
    thread.compile(engine, "openvino", failed=told.set)
    thread.join(WAIT_S)
    assert told.is_set()
    assert model_card(engine, WorkerSettings()).settings.runtime == "torch"
    device.call(lambda: None).result()
    assert engine.runner.executor is engine.runner.eager
    assert [record.message for record in caplog.records if record.name == "worker.engine_process.compile_thread"] == [
        "openvino failed: serving on without (ModuleNotFoundError: No module named 'openvino')"
    ]
    assert pictures(engine, [image_task(mode="strict")])[0].bucket == 2


@pytest.mark.slow
def test_code_that_errs_is_not_taken(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    def errs(network: Network) -> Network:
        twin = copy.copy(ready[1]._network)
        decode = twin.decode
        twin.decode = lambda latents: 2 * decode(latents)  # type: ignore[method-assign]
        return twin

    monkeypatch.setattr(Network, "converted", errs)
    engine = Engine(ready[0], 4)
    with pytest.raises(RuntimeError, match="decoder is off by 100%"):
        converted(engine, engine.rehearsal.examples())


@pytest.mark.slow
def test_previews_of_a_shape_that_was_not_converted_are_made_by_pytorch(ready: Ready) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ready[1].decode(latents), ready[0].network.decode(latents))


_waiting: dict[int, dict[str, Picture]] = {}


def _until(delivered: "SimpleQueue[Advance]", key: str) -> Picture:
    """The picture of `key`; others that come first are kept for their turn."""
    came = _waiting.setdefault(id(delivered), {})
    while key not in came:
        for outcome in delivered.get(timeout=WAIT_S).outcomes():
            assert isinstance(outcome, Picture)
            came[outcome.key] = outcome
    return came.pop(key)


def _one_size() -> LoadedModel:
    return served("tiny", "ab", tiny_pipelines.contract(sizes=[(64, 64)]), tiny_pipelines.build())
