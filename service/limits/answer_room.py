"""Bounds the memory that the answers to one caller take while they are written."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobs.metrics import ApiMetrics
from service.limits.room import Room


class AnswerRoom(Room):
    """Room for the answers to each caller, as metrics show it."""

    def __init__(self, most: int, metrics: ApiMetrics) -> None:
        super().__init__(most)
        self._metrics = metrics
        metrics.answer_bytes_limit.set(most)

    @asynccontextmanager
    async def taken(self, caller: str, size: int) -> AsyncIterator[None]:
        with self._metrics.answers_waiting.track_inprogress():
            await self.wait_for(caller, size)
        async with super().taken(caller, size):
            self._metrics.answer_bytes.inc(self.share(size))
            try:
                yield
            finally:
                self._metrics.answer_bytes.dec(self.share(size))
