"""The engine's side of the connection: requests go to the device thread, its reports go back."""

import gc
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection

import torch

from jobs.models import ModelCard
from jobs.settings import WorkerSettings
from worker.engine.decoded import Advance
from worker.engine.engine import Engine
from worker.engine.step_times.batch_sizes import LARGEST
from worker.engine_process.batch_size_thread import BatchSizeThread
from worker.engine_process.compile_thread import CompileThread
from worker.engine_process.device_thread import DeviceThread
from worker.engine_process.messages import (
    Add,
    Backlog,
    Changed,
    Ended,
    Finished,
    Ready,
    Report,
    Request,
    Shown,
    Watch,
    Withdraw,
    Withdrawn,
)
from worker.errors import DeviceLostError, FolderRefusedError, StartFailedError
from worker.model_folder.loading import LoadedModel, load
from worker.startup import compiler_for, model_card, start_engine

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 1e-4
"""How long a thread may hold the interpreter while another wants it. Each operation of a step releases it and takes it
back; with Python's default of 5 ms the device would be idle while messages are read and written
(docs/performance.md)."""

LAUNCH_S = 0.001
"""Seconds for which the reports of a step wait when another follows: pictures are made and messages written when that
was launched."""


def run(connection: Connection, settings: WorkerSettings, load_model: Callable[..., LoadedModel] | None = None) -> None:
    """Load the model and serve the worker at the other end of `connection` until it closes it.

    The body of a process. Signals are the worker's business: those that a terminal or a service manager sends to all
    processes of a group do not end this one.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    device = DeviceThread()
    device.start()

    server = EngineServer(connection, device)

    def start() -> tuple[Engine, ModelCard]:
        engine = start_engine(settings, load_model or load)
        # What is there now stays: a pass over it would hold up a step.
        gc.collect()
        gc.freeze()
        compiler = compiler_for(settings, engine.model.network.device)
        compiling = CompileThread(device) if compiler else None

        def announce(reason: str | None = None) -> None:
            server.change(device.call(model_card, engine, settings, reason).result())

        def chosen(reason: str) -> None:
            announce(reason)
            if compiling and compiler == "inductor":  # every batch size takes it long, and none is added afterwards
                compiling.compile(engine, compiler, failed=partial(announce, reason))

        if compiling and compiler == "openvino":  # one model for all batch sizes, whose times are its own
            compiling.compile(engine, compiler, failed=announce)
        largest = LARGEST if settings.max_batch == "auto" else settings.max_batch
        BatchSizeThread(device, engine, chosen, largest, after=compiling if compiler == "openvino" else None).start()
        return engine, model_card(engine, settings)

    server.serve(start)
    os._exit(0)  # whatever loads, compiles or runs: finalising the interpreter around it would abort the process


class EngineServer:
    """Serves one connection. Reports are sent by a thread of their own: the device never waits for whoever reads them.

    What a step brings is noted, and handed to that thread in one piece.
    """

    def __init__(self, connection: Connection, device: DeviceThread) -> None:
        self._connection = connection
        self._device = device
        self._noted: list[Report | Advance] = []
        self._reports: queue.SimpleQueue[tuple[list[Report | Advance], float]] = queue.SimpleQueue()

    def serve(self, start: Callable[[], tuple[Engine, ModelCard]]) -> None:
        """Run `start` on the device thread, then its engine, until the other end closes the connection."""
        threading.Thread(target=self._send_reports, name="reports", daemon=True).start()
        self._device.stopped.add_done_callback(self._device_ended)
        self._device.call(start).add_done_callback(self._started)
        try:
            while (request := self._connection.recv()) is not None:
                self._handle(request)
        except (EOFError, OSError):
            pass  # the worker is gone

    def change(self, card: ModelCard) -> None:
        """Say that the engine serves what `card` says from now on."""
        self._report(Changed(card))

    def _started(self, starting: "Future[tuple[Engine, ModelCard]]") -> None:
        """Called on the device thread."""
        if error := starting.exception():
            self._report(Ended(_reason(error)))
            return
        self._engine, card = starting.result()
        self._engine.runner.measure = self._note
        self._engine.show = lambda previews: self._note(Shown(previews))
        self._device.serve(self._engine, self._note, self._hand_over)
        # A plain string: to read a value of its own type, the worker would import torch.
        self._report(Ready(card, str(torch.__version__)))

    def _note(self, report: Report | Advance) -> None:
        """Called on the device thread, like `_hand_over`."""
        self._noted.append(report)

    def _hand_over(self, busy: bool) -> None:
        """Have what is noted sent, after LAUNCH_S seconds where the device is `busy`."""
        if self._noted:
            self._reports.put((self._noted, LAUNCH_S if busy else 0.0))
            self._noted = []

    def _report(self, report: Report) -> None:
        """Have `report` sent at once; for any thread."""
        self._reports.put(([report], 0.0))

    def _device_ended(self, stopped: "Future[None]") -> None:
        if error := stopped.exception():
            if not isinstance(error, DeviceLostError):
                log.error("the device thread failed", exc_info=error)
            self._hand_over(busy=False)
            self._report(Ended(_reason(error)))

    def _handle(self, request: Request) -> None:
        match request:
            case Add(tasks, sources):
                self._device.call_soon(self._engine.add, tasks, sources)
            case Withdraw(None):
                self._device.call_soon(self._engine.withdraw_unstarted).add_done_callback(self._withdrawn)
            case Withdraw(keys):
                self._device.call_soon(self._engine.withdraw, keys).add_done_callback(self._withdrawn)
            case Watch(jobs):
                self._engine.watched = jobs
            case Backlog(waits):
                self._engine.backlogged = waits

    def _withdrawn(self, answer: "Future[list[str]]") -> None:
        self._report(Withdrawn(answer.result()))

    def _send_reports(self) -> None:
        try:
            self._send_reports_forever()
        except OSError:
            pass  # the worker is gone
        except Exception as error:  # of a report that cannot be made: whoever waits for it must not wait for ever
            log.exception("the reports failed")
            with suppress(OSError):
                self._connection.send([Ended(_reason(error))])

    def _send_reports_forever(self) -> None:
        while True:
            reports, after_s = self._reports.get()
            time.sleep(after_s)
            while not self._reports.empty():
                reports += self._reports.get()[0]
            self._connection.send([_made(each) for each in reports])


def _made(report: Report | Advance) -> Report:
    return Finished(report.outcomes()) if isinstance(report, Advance) else report


def _reason(error: BaseException) -> str:
    if isinstance(error, FolderRefusedError | StartFailedError | DeviceLostError):
        return str(error)
    log.debug("the engine ended", exc_info=error)
    return f"{type(error).__name__}: {error}"
