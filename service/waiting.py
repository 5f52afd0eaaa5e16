"""Waiting until a job is settled."""

import asyncio
import time

from jobs.models import JobEvent, JobState
from jobs.queue import TaskQueue
from service.problems import Problem

# Events may be lost with a broken connection; then the state is read this often (seconds).
POLL_S = 2.0


async def wait_until_settled(
    queue: TaskQueue, listener: asyncio.Queue[JobEvent | None], job_id: str, deadline: float
) -> JobState:
    """The job once all its images are made or one has failed; Problem 504 after `deadline` (Unix seconds)."""
    while True:
        remaining = deadline - time.time()
        if remaining <= 0:
            raise expired()
        try:
            event = await asyncio.wait_for(listener.get(), min(remaining, POLL_S))
        except TimeoutError:
            event = None
        if event is not None and event.done < event.total and not event.failed:
            continue
        state = await queue.job(job_id)
        if state is None:
            raise Problem(503, "job-lost", "The job is gone", "Redis no longer knows this job; send the call again.")
        if state.settled or state.failures:
            return state


def expired() -> Problem:
    return Problem(
        504, "deadline-expired", "Not ready in time", "The images were not ready within the call's timeout; try again."
    )
