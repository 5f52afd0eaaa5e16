"""The worker's side of the connection to the engine. Without torch."""

import gc
import logging
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

from jobs.models import ImageTask, ModelCard
from jobs.queue.claims import SourceFiles
from jobs.settings import WorkerSettings
from jobs.structured_logging import progress
from worker.engine.outcomes import Measured, Outcome, PreviewImage
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
from worker.errors import INSTALL, EngineEndedError

log = logging.getLogger(__name__)

LAST_STEP_S = 1.0
"""Seconds that the engine's process is given to end by itself."""


class EngineClient:
    """The engine at the other end of `connection`.

    `ready` is done when it serves, `stopped` when it has ended; both get an EngineEndedError if it fails. The functions
    set on it are called on a thread of its own: `measure` from the beginning, `deliver` with finished tasks and `show`
    with previews once there are tasks.
    """

    def __init__(self, connection: Connection) -> None:
        self.ready: Future[Ready] = Future()
        self.stopped: Future[None] = Future()
        for future in (self.ready, self.stopped):
            future.set_running_or_notify_cancel()  # so that a waiter who is cancelled does not cancel it
        self.measure: Callable[[Measured], None] = lambda measured: None
        self.deliver: Callable[[list[Outcome]], None] = lambda outcomes: None
        self.show: Callable[[list[PreviewImage]], None] = lambda previews: None
        self.card: ModelCard
        """The model that the engine serves, once it is ready."""
        self._connection = connection
        self._withdrawals: deque[Future[list[str]]] = deque()
        self._backlogged = False
        self._reader = threading.Thread(target=self._read, name="engine-reports", daemon=True)

    def start(self) -> None:
        """Begin to read what the engine reports."""
        self._reader.start()

    def add(self, tasks: Mapping[str, ImageTask], sources: Mapping[str, SourceFiles] = MappingProxyType({})) -> None:
        """Have `tasks` made; they join at the next step together, and outcomes carry their keys, which must be new.

        `sources` holds the files of those that begin from a picture.
        """
        self._send(Add(tasks, dict(sources)))

    def withdraw(self, keys: Collection[str]) -> "Future[list[str]]":
        """Take the tasks of `keys` out at the next step boundary; gives the keys of those that were not finished."""
        return self._withdraw(list(keys))

    def withdraw_unstarted(self) -> "Future[list[str]]":
        """Take out every task that has not begun; gives their keys."""
        return self._withdraw(None)

    def watch(self, jobs: Collection[str]) -> None:
        """Have previews of `jobs`, and of no others, made from now on."""
        self._send(Watch(frozenset(jobs)))

    def tell_backlog(self, waits: bool) -> None:
        """Say whether more images wait in the queue than the engine has."""
        if waits != self._backlogged:
            self._backlogged = waits
            self._send(Backlog(waits))

    def close(self) -> None:
        """Let the engine end, whatever it does."""
        self._send(None)

    def _withdraw(self, keys: list[str] | None) -> "Future[list[str]]":
        answer: Future[list[str]] = Future()
        self._withdrawals.append(answer)
        self._send(Withdraw(keys))
        return answer

    def _send(self, request: Request | None) -> None:
        with suppress(OSError):  # it has ended, as `stopped` says
            self._connection.send(request)

    def _read(self) -> None:
        reason = ""
        try:
            while not reason:
                for report in self._connection.recv():
                    reason = self._handle(report)
        except (EOFError, OSError):
            reason = self._how_it_ended()
        error = EngineEndedError(reason)
        if not self.ready.done():
            self.ready.set_exception(error)
        self.stopped.set_exception(error)

    def _handle(self, report: Report) -> str:
        """Pass the report on; returns the reason when it is the last."""
        match report:
            case Ready(card):
                self.card = card
                self.ready.set_result(report)
            case Changed(card):
                self.card = card
            case Measured():
                self.measure(report)
            case Finished(outcomes):
                self.deliver(outcomes)
            case Shown(previews):
                self.show(previews)
            case Withdrawn(keys):
                answer = self._withdrawals.popleft()
                if answer.set_running_or_notify_cancel():
                    answer.set_result(keys)
            case Ended(reason):
                return reason
        return ""

    def _how_it_ended(self) -> str:
        return "the engine's connection was closed"


class EngineProcess(EngineClient):
    """An engine in a child process of this one."""

    def __init__(self, settings: WorkerSettings, load_model: Callable[..., Any] | None = None) -> None:
        """Fork the child, which loads the model. To be called before this process has threads."""
        here, there = multiprocessing.Pipe()
        super().__init__(here)
        # Forked: what is imported here is shared with it, and PyTorch and CUDA are not, since only it loads them.
        forks = multiprocessing.get_context("fork")
        self._process = forks.Process(target=_run, args=(here, there, settings, load_model), name="engine", daemon=True)
        self._process.start()
        there.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def end(self) -> None:
        """Let the process end, and kill it when it does not."""
        self.close()
        self._process.join(LAST_STEP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _how_it_ended(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"the engine's process (pid {self._process.pid}) {how}"


def _run(
    parents_end: Connection, connection: Connection, settings: WorkerSettings, load_model: Callable[..., Any] | None
) -> None:
    parents_end.close()  # or the end of the worker would go unnoticed
    gc.disable()  # else a quarter of the time until the model is loaded goes into passes over what is being imported
    try:
        with progress("importing PyTorch"):
            from worker.engine_process import server
    except ModuleNotFoundError as error:
        connection.send([Ended(f"{error}; {INSTALL}")])
        return
    gc.freeze()
    gc.enable()
    server.run(connection, settings, load_model)
