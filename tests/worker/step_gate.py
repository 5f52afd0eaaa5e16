"""An engine that steps only when a test lets it."""

import math
import threading
from collections.abc import Callable

from jobs.testing.waiting import wait_until
from worker.engine.decoded import Advance
from worker.engine.engine import Engine
from worker.engine.outcomes import Outcome


class Made(Advance):
    """A step of which the outcomes are made already."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        super().__init__([], [])
        object.__setattr__(self, "failures", outcomes)


def hindered(images: int, hinder: Callable[[], object]) -> Callable[[Engine], Advance]:
    """Return an Engine.advance that calls `hinder` before each step with begun images once it has made `images`."""
    advance, made = Engine.advance, 0

    def step(engine: Engine) -> Advance:
        nonlocal made
        if made >= images and engine._begun():
            hinder()
        outcomes = advance(engine).outcomes()
        made += len(outcomes)
        return Made(outcomes)

    return step


class StepGate:
    """Holds every step of `engine` back, on its thread, until the test allows it.

    `taken` counts the steps, `made` holds their outcomes in order. To be opened before the thread can end.
    """

    def __init__(self, engine: Engine) -> None:
        self.taken = 0
        self.made: list[Outcome] = []
        self._allowed: float = 0
        self._changed = threading.Condition()
        self._advance = engine.advance
        engine.advance = self._gated  # type: ignore[method-assign]

    def allow(self, steps: float) -> None:
        with self._changed:
            self._allowed += steps
            self._changed.notify_all()

    def open(self) -> None:
        """Allow all that are to come."""
        self.allow(math.inf)

    async def take(self) -> None:
        """Allow one step, and wait for its end."""
        before = self.taken
        self.allow(1)
        await wait_until(lambda: self.taken > before)

    async def take_until_made(self, outcomes: int) -> None:
        while len(self.made) < outcomes:
            await self.take()

    def _gated(self) -> Advance:
        with self._changed:
            self._changed.wait_for(lambda: self._allowed > 0)
            self._allowed -= 1
        outcomes = self._advance().outcomes()
        self.made += outcomes
        self.taken += 1
        return Made(outcomes)
