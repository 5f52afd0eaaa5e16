"""``/jobs/{id}``: how far a job is, and its cancellation."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from jobs.models import JobState
from jobs.queue import TaskQueue
from service.context import ApiContext, Context
from service.job_response import JobResponse
from service.problems import Problem, problem_responses

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


@router.get("/jobs/{job_id}", response_model_exclude_none=True, responses=problem_responses(404, 422, 503))
async def get_job(job_id: JobId, request: Request, context: Context) -> JobResponse:
    """Status of a job and its images so far, for as long as its results are kept."""
    _, state = await _find(context, job_id)
    return JobResponse.of(state, request)


@router.delete("/jobs/{job_id}", response_model_exclude_none=True, responses=problem_responses(404, 422, 503))
async def cancel_job(job_id: JobId, request: Request, context: Context) -> JobResponse:
    """Cancel what is not finished, waiting or running; images made before stay. The answer is the job's final state."""
    queue, _ = await _find(context, job_id)
    await queue.cancel(job_id, "cancelled by the client", ttl_s=context.settings.result_ttl_s)
    state = await queue.job(job_id)
    if state is None:
        raise _not_found()
    return JobResponse.of(state, request)


async def _find(context: ApiContext, job_id: str) -> tuple[TaskQueue, JobState]:
    for model in await context.catalogue.read():
        if state := await model.queue.job(job_id):
            return model.queue, state
    raise _not_found()


def _not_found() -> Problem:
    return Problem(404, "job-not-found", "No such job", "The job is unknown, or its results have expired.")
