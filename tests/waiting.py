"""Waiting for something to become true, instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def wait_until(predicate: Callable[[], object | Awaitable[object]], timeout_s: float = 10.0) -> None:
    """Poll `predicate` (plain or async) until it is truthy; AssertionError after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, f"{predicate} stayed false for {timeout_s} s"
        await asyncio.sleep(0.01)
