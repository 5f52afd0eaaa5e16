"""``/jobs/{id}``: a job's status, its events, and its cancellation."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from jobs.models import JobState
from jobs.queue.job_client import JobClient
from service.context import Context, base_url
from service.job_stream import LAST, SentImages, job_stream
from service.problems import NothingMoreError, Problem, problem_responses
from service.schemas.job_response import JobResponse

router = APIRouter(tags=["jobs"], responses=problem_responses(404, 422, 503))


@dataclass(frozen=True)
class FoundJob:
    queue: JobClient
    state: JobState


async def _find(job_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")], request: Request, context: Context) -> FoundJob:
    request.state.job_id = job_id
    for queue in await context.catalogue.queues():
        state = await queue.job(job_id)
        if state and state.client in ("", request.state.caller):  # another key's job is unknown to this one
            return FoundJob(queue, state)
    raise _not_found()


Job = Annotated[FoundJob, Depends(_find)]


@router.get("/jobs/{job_id}", response_model_exclude_none=True)
async def get_job(job: Job, request: Request) -> JobResponse:
    """Status of a job and its images so far, for as long as its results are kept."""
    return JobResponse.of(job.state, base_url(request))


@router.delete("/jobs/{job_id}", response_model_exclude_none=True)
async def cancel_job(job: Job, request: Request, context: Context) -> JobResponse:
    """Cancel the images that are not finished, waiting or running; finished ones stay. Returns the final state."""
    await job.queue.cancel(job.state.id, "cancelled by the client", ttl_s=context.settings.result_ttl_s)
    state = await job.queue.job(job.state.id)
    if state is None:
        raise _not_found()
    return JobResponse.of(state, base_url(request))


async def _last_event_id(
    job: Job,  # found first: an id that is none is an error, whatever else the request says
    last_event_id: Annotated[
        str,
        Header(
            alias="Last-Event-ID",
            pattern=f"^[0-9a-f]{{1,16}}({LAST})?$",
            description="id of the last event received: images sent before are not sent again; "
            "204, which ends a browser's attempts, after the last event of a job",
        ),
    ] = "0",
) -> str:
    if last_event_id.endswith(LAST):
        raise NothingMoreError
    return last_event_id


async def _counted(request: Request, context: Context) -> AsyncIterator[None]:
    with context.streams.opened(request):
        yield


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    dependencies=[Depends(_counted)],
    responses={204: {"description": "The client has the job's last event"}, **problem_responses(429)},
)
async def job_events(
    job: Job, request: Request, context: Context, last_event_id: Annotated[str, Depends(_last_event_id)]
) -> AsyncIterator[ServerSentEvent]:
    """`queued`, `running`, `image` for each finished image, then `completed`, `failed`, `cancelled` or `expired`."""
    async for event in job_stream(context, job.queue, request, job.state.id, SentImages(last_event_id)):
        yield event


def _not_found() -> Problem:
    return Problem(404, "job-not-found", "No such job", "The job is unknown, or its results have expired.")
