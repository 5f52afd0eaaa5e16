"""Waiting for something to become true, instead of sleeping; a bound only keeps a test that fails from hanging."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

# Seconds: far longer than anything takes on a busy machine, so that no outcome depends on it.
SAFETY_NET_S = 300.0

Result = TypeVar("Result")


async def wait_until(
    predicate: Callable[[], object | Awaitable[object]], timeout_s: float = SAFETY_NET_S, pause_s: float = 0.01
) -> None:
    """Poll `predicate` (plain or async) until it is truthy; AssertionError after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, f"{predicate} stayed false for {timeout_s} s"
        await asyncio.sleep(pause_s)


async def outcome(of: Awaitable[Result]) -> Result:
    """Return or raise what the coroutine or task does; TimeoutError when it does not end."""
    return await asyncio.wait_for(of, SAFETY_NET_S)


def block_until(
    predicate: Callable[[], object],
    what: str | Callable[[], str],
    timeout_s: float = SAFETY_NET_S,
    pause_s: float = 0.05,
) -> None:
    """Poll `predicate` until it is truthy, outside a loop; AssertionError with `what` after `timeout_s` seconds."""
    give_up = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < give_up, f"waited {timeout_s} s: {what if isinstance(what, str) else what()}"
        time.sleep(pause_s)
