"""Retries for a Redis, or a store of images, that is away or has no room left."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

Result = TypeVar("Result")


async def until_redis_answers(operation: Callable[[], Awaitable[Result]], name: str = "Redis") -> Result:
    """Await `operation()` again and again, with growing pauses, until Redis, or what else has `name`, has done it."""
    pause = FIRST_PAUSE_S
    while True:
        try:
            result = await operation()
            _raise_if_cancelled()
            return result
        except (RedisError, OSError) as error:
            _raise_if_cancelled()
            log.warning("%s does not do it (%s): trying again in %.1f s", name, error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _raise_if_cancelled() -> None:
    """Raise a cancellation that was lost: `asyncio.wait_for` of Python 3.11, in redis-py's writes, may swallow it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
