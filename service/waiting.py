"""Waiting until a job is settled, or its client is gone."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

from jobs.models import JobState, Preview
from jobs.queue.job_events import News
from jobs.queue.task_queue import TaskQueue
from service.problems import ClientGoneError, deadline_expired, job_lost

# Events may be lost with a broken connection; then the state is read this often (seconds).
POLL_S = 2.0

Result = TypeVar("Result")


async def wait_until_settled(queue: TaskQueue, listener: asyncio.Queue[News], job_id: str, deadline: float) -> JobState:
    """The job once all its images are made or one has failed; Problem 504 after `deadline` (Unix seconds)."""
    while True:
        remaining = deadline - time.time()
        if remaining <= 0:
            raise deadline_expired()
        try:
            event = await asyncio.wait_for(listener.get(), min(remaining, POLL_S))
        except TimeoutError:
            event = None
        if isinstance(event, Preview) or (event and event.done < event.total and not event.failed):
            continue
        state = await queue.job(job_id)
        if state is None:
            raise job_lost()
        if state.settled or state.failures:
            return state


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns; ClientGone, and `work` cancelled, as soon as the client of `request` disconnects."""
    working, gone = asyncio.create_task(work), asyncio.create_task(_disconnection(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def next_news(listener: asyncio.Queue[News], timeout_s: float = POLL_S) -> list[News]:
    """What has come since the last call, or comes first within `timeout_s` seconds; empty when nothing does."""
    news = []
    with suppress(TimeoutError):
        news.append(await asyncio.wait_for(listener.get(), timeout_s))
    while not listener.empty():
        news.append(listener.get_nowait())
    return news
