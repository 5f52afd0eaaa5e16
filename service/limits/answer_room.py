"""Bounds the memory that the answers to one caller take while they are written."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobs.metrics import ApiMetrics


class AnswerRoom:
    """Room for `most` bytes for each caller; an answer beyond that waits until earlier ones are written."""

    def __init__(self, most: int, metrics: ApiMetrics) -> None:
        self._most = most
        self._metrics = metrics
        self._taken: Counter[str] = Counter()
        self._freed = asyncio.Event()
        metrics.answer_bytes_limit.set(most)

    @asynccontextmanager
    async def taken(self, caller: str, size: int) -> AsyncIterator[None]:
        """Hold room for `size` bytes; an answer larger than all the room goes alone."""
        share = min(size, self._most)
        with self._metrics.answers_waiting.track_inprogress():
            while self._taken[caller] + share > self._most:
                self._freed.clear()
                await self._freed.wait()
        self._taken[caller] += share
        self._metrics.answer_bytes.inc(share)
        try:
            yield
        finally:
            self._metrics.answer_bytes.dec(share)
            self._taken[caller] -= share
            self._taken += Counter()  # callers that hold nothing are forgotten
            self._freed.set()
