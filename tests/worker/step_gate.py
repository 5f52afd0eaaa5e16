"""An engine that steps only when a test lets it."""

import math
import threading

from jobs.testing.waiting import wait_until
from worker.engine.engine import Engine
from worker.engine.outcomes import Outcome


class StepGate:
    """Holds every step of `engine` back, on its thread, until the test allows it.

    `taken` counts the steps, `made` holds their outcomes in order. To be opened before the thread can end.
    """

    def __init__(self, engine: Engine) -> None:
        self.taken = 0
        self.made: list[Outcome] = []
        self._allowed: float = 0
        self._changed = threading.Condition()
        self._step = engine.step
        engine.step = self._gated  # type: ignore[method-assign]

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

    def _gated(self) -> list[Outcome]:
        with self._changed:
            self._changed.wait_for(lambda: self._allowed > 0)
            self._allowed -= 1
        outcomes = self._step()
        self.made += outcomes
        self.taken += 1
        return outcomes
