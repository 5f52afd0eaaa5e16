"""The engine's reports: sent while the next step runs, or at once where there is none."""

import threading
from collections.abc import Iterator
from multiprocessing import Pipe

import pytest

from jobs.models import ModelCard
from jobs.settings import WorkerSettings
from jobs.testing.waiting import SAFETY_NET_S
from tests.worker.tasks import image_task
from worker.engine.engine import Engine
from worker.engine.outcomes import Measured
from worker.engine_process.device_thread import DeviceThread
from worker.engine_process.messages import Add, Finished, Ready
from worker.engine_process.server import EngineServer
from worker.model_folder.loading import LoadedModel
from worker.startup import model_card


class Served:
    """An engine for one row, behind a connection. Its steps wait for `gate` once `held_from` of them have run."""

    def __init__(self, model: LoadedModel) -> None:
        self.engine = Engine(model, max_batch=1)
        self.engine.warm_up()
        self.gate = threading.Event()
        self.held_from: float = float("inf")
        self.here, there = Pipe()
        self._step, self.engine.runner.eager.step = self.engine.runner.eager.step, self._held  # type: ignore[method-assign]
        self._taken = 0
        device = DeviceThread()
        device.start()
        self.serving = threading.Thread(target=EngineServer(there, device).serve, args=(self._start,))
        self.serving.start()
        self.device = device

    def reports(self) -> Iterator[object]:
        """The reports as they come; AssertionError when none does."""
        while True:
            assert self.here.poll(SAFETY_NET_S), "the engine reports nothing"
            yield from self.here.recv()

    def _start(self) -> tuple[Engine, ModelCard]:
        return self.engine, model_card(self.engine, WorkerSettings(max_batch=1))

    def _held(self, inputs):  # type: ignore[no-untyped-def]
        self._taken += 1
        if self._taken > self.held_from:
            assert self.gate.wait(SAFETY_NET_S)
        return self._step(inputs)


@pytest.fixture
def served(tiny_model: LoadedModel) -> Iterator[Served]:
    served = Served(tiny_model)
    assert isinstance(next(served.reports()), Ready)
    yield served
    served.gate.set()
    served.here.send(None)
    served.serving.join(SAFETY_NET_S)
    served.device.stop()
    served.device.join(SAFETY_NET_S)


def _finished(served: Served) -> list[str]:
    """The keys of the tasks that finish next."""
    return next([one.key for one in report.outcomes] for report in served.reports() if isinstance(report, Finished))


def test_a_picture_is_sent_while_the_next_step_runs(served: Served) -> None:
    served.held_from = served.engine.model.table.steps
    served.here.send(Add({"first": image_task(), "second": image_task()}, {}))
    assert _finished(served) == ["first"]
    served.gate.set()
    assert _finished(served) == ["second"]


def test_all_steps_are_measured_when_none_is_left(served: Served) -> None:
    served.here.send(Add({"only": image_task()}, {}))
    stages = []
    for report in served.reports():
        if isinstance(report, Measured):
            stages.append(report.stage)
        if isinstance(report, Finished):
            break
    assert stages == ["encode", *["denoise_step"] * served.engine.model.table.steps, "decode"]
