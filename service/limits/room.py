"""Bounds the memory that the calls of one caller take."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Room for `most` bytes for each caller; what is beyond that waits until others are done."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()
        self._freed = asyncio.Event()

    def share(self, size: int) -> int:
        """The room that `size` bytes take: what is larger than all the room goes alone."""
        return min(size, self._most)

    async def wait_for(self, caller: str, size: int) -> None:
        """Wait until there is room for `size` bytes of `caller`."""
        while self._taken[caller] + self.share(size) > self._most:
            self._freed.clear()
            await self._freed.wait()

    @asynccontextmanager
    async def taken(self, caller: str, size: int) -> AsyncIterator[None]:
        """Hold room for `size` bytes."""
        await self.wait_for(caller, size)
        share = self.share(size)
        self._taken[caller] += share
        try:
            yield
        finally:
            self._taken[caller] -= share
            self._taken += Counter()  # callers that hold nothing are forgotten
            self._freed.set()
