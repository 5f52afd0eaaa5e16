"""Bounds the memory that the calls of one caller take: for pictures that they bring, or for their answers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Gauge


class Room:
    """Room for `most` bytes for each caller; what is beyond that waits until others are done.

    The gauges show the bytes `taken` by all callers, and the number `waiting`.
    """

    def __init__(self, most: int, taken: Gauge, waiting: Gauge) -> None:
        self._most, self._shown, self._waiting = most, taken, waiting
        self._taken: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def taken(self, caller: str, size: int) -> AsyncIterator[None]:
        """Hold room for `size` bytes of `caller`, once there is some: what is larger than all the room goes alone."""
        share = min(size, self._most)
        with self._waiting.track_inprogress():
            while self._taken[caller] + share > self._most:
                self._freed.clear()
                await self._freed.wait()
        self._taken[caller] += share
        self._shown.inc(share)
        try:
            yield
        finally:
            self._shown.dec(share)
            self._taken[caller] -= share
            self._taken += Counter()  # callers that hold nothing are forgotten
            self._freed.set()
