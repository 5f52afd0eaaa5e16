"""The thread that runs the engine."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from worker.device import accelerator
from worker.device.allocator import keep_freed_memory
from worker.engine.decoded import Advance
from worker.engine.engine import Engine
from worker.errors import DeviceLostError

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Call:
    run: Callable[[], None]
    beside_a_step: bool


class DeviceThread(threading.Thread):
    """Runs calls, and steps the engine between them for as long as it has rows.

    Other threads add and withdraw tasks through `call`. What they set on the engine directly, `backlogged` and
    `watched`, it only reads. `stopped` is done when the thread has ended, with the exception if one ended it: of a
    step, or of any call when the engine's device has failed.
    """

    def __init__(self) -> None:
        super().__init__(name="device", daemon=True)
        self.stopped: Future[None] = Future()
        self.stopped.set_running_or_notify_cancel()  # so that a waiter who is cancelled does not cancel it
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._put_off: deque[_Call | None] = deque()
        self._engine: Engine | None = None
        self._deliver: Callable[[Advance], None] = lambda advance: None
        self._between: Callable[[bool], None] = lambda busy: None

    def call(self, function: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """Run `function(*arguments)` on this thread between two steps."""
        return self._put(partial(function, *arguments), beside_a_step=False)

    def call_soon(self, function: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """The same, or while a step runs: for a `function` that neither needs the device nor changes what runs."""
        return self._put(partial(function, *arguments), beside_a_step=True)

    def doubt(self, error: BaseException) -> None:
        """End the thread if the engine's device has failed for good after `error`, which another thread had."""
        self.call(self._raise_if_lost, error)

    def serve(
        self, engine: Engine, deliver: Callable[[Advance], None], between: Callable[[bool], None] = lambda busy: None
    ) -> None:
        """Step `engine` from now on; `deliver` is given what each step brought, on this thread, which should not make
        the outcomes: the device would wait. `between` is called after each step and call: is there more to step?"""
        self.call(self._adopt, engine, deliver, between)

    def stop(self) -> None:
        """End the thread after the calls made so far; rows still in the engine are dropped."""
        self._calls.put(None)

    def run(self) -> None:
        # Per thread, and inherited by the workers that this thread's first operations start.
        torch.set_flush_denormal(True)
        keep_freed_memory()
        try:
            self._loop()
        except BaseException as error:
            self.stopped.set_exception(error)
        else:
            self.stopped.set_result(None)

    def _loop(self) -> None:
        while True:
            busy = self._engine is not None and self._engine.busy
            self._between(busy)
            try:
                call = self._put_off.popleft() if self._put_off else self._calls.get(block=not busy)
            except queue.Empty:
                self._step()
                continue
            if call is None:
                return
            call.run()
            del call  # which keeps what it returned or raised

    def _step(self) -> None:
        assert self._engine is not None
        advance = self._engine.advance()
        if advance:
            self._deliver(advance)

    def _adopt(self, engine: Engine, deliver: Callable[[Advance], None], between: Callable[[bool], None]) -> None:
        self._engine, self._deliver, self._between = engine, deliver, between
        engine.await_task = self._run_call_soon

    def _run_call_soon(self, until: float) -> bool:
        """Wait for a call until `until`, a time of `time.perf_counter`, and run it; False where none came, and where it
        is put off until the step has ended."""
        if self._put_off:
            return False
        try:
            call = self._calls.get(timeout=max(0.0, until - time.perf_counter()))
        except queue.Empty:
            return False
        if call is None or not call.beside_a_step:
            self._put_off.append(call)
            return False
        call.run()
        return True

    def _put(self, function: Callable[[], Result], beside_a_step: bool) -> "Future[Result]":
        future: Future[Result] = Future()
        self._calls.put(_Call(partial(self._settle, future, function), beside_a_step))
        return future

    def _settle(self, future: "Future[Result]", function: Callable[[], Result]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = function()
        except Exception as error:
            lost = self._lost(error)
            future.set_exception(lost or error)
            del future  # else it and the error keep each other, and the tensors of each frame that failed
            if lost:
                raise lost from error
        else:
            future.set_result(result)

    def _raise_if_lost(self, error: BaseException) -> None:
        if lost := self._lost(error):
            raise lost

    def _lost(self, error: BaseException) -> DeviceLostError | None:
        return accelerator.lost(error, self._engine.model.network.device) if self._engine else None
