"""Waits until a job is settled, or its client is gone."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

from jobs.models import JobState, Preview
from jobs.queue.job_client import JobClient
from jobs.queue.job_events import News
from service.problems import ClientGoneError, DeadlineExpiredError, job_lost

# Events may be lost when a connection breaks: without any, the job is read again after this many seconds.
POLL_S = 2.0

Result = TypeVar("Result")


async def wait_until_settled(queue: JobClient, listener: asyncio.Queue[News], job_id: str, deadline: float) -> JobState:
    """Wait until all images of the job are made or one has failed; raises as `news_before` and `stored_job` do."""
    while True:
        news = await news_before(listener, deadline)
        if news and not any(_may_end(one) for one in news):
            continue
        state = await stored_job(queue, job_id)
        if state.settled or state.failures:
            return state


def _may_end(news: News) -> bool:
    """Return whether the job may have ended, or failed, with `news`; None stands for events that were missed."""
    if isinstance(news, Preview):
        return False
    return news is None or news.done >= news.total or news.failed > 0


async def news_before(listener: asyncio.Queue[News], deadline: float) -> list[News]:
    """The next news, empty after POLL_S seconds without any; DeadlineExpiredError after `deadline` (monotonic)."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise DeadlineExpiredError
    return await next_news(listener, min(remaining, POLL_S))


async def stored_job(queue: JobClient, job_id: str) -> JobState:
    """The job's state; Problem 503 when Redis no longer holds the job."""
    state = await queue.job(job_id)
    if state is None:
        raise job_lost()
    return state


async def next_news(listener: asyncio.Queue[News], timeout_s: float = POLL_S) -> list[News]:
    """The news since the last call; if there are none, wait up to `timeout_s` seconds for some. Empty without any."""
    news = []
    with suppress(TimeoutError):
        news.append(await asyncio.wait_for(listener.get(), timeout_s))
    while not listener.empty():
        news.append(listener.get_nowait())
    return news


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work`; when the client of `request` disconnects first, cancel it and raise ClientGoneError."""
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
