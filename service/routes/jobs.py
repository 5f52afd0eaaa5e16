"""``GET /jobs/{id}``: how far a job is."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel

from jobs.models import ImageFailure, JobStatus
from service.context import Context
from service.generate_response import GeneratedImage
from service.problems import Problem, problem_responses
from service.routes.images import image_url

router = APIRouter(tags=["jobs"])


class JobResponse(BaseModel):
    """A job's status, and the images made so far."""

    id: str
    model: str
    created: int
    status: JobStatus
    total: int
    images: list[GeneratedImage]
    failures: list[ImageFailure]


@router.get("/jobs/{job_id}", response_model_exclude_none=True, responses=problem_responses(404, 422, 503))
async def get_job(
    job_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")], request: Request, context: Context
) -> JobResponse:
    """Status of a job, for as long as its results are kept."""
    for model in await context.catalogue.read():
        if state := await model.queue.job(job_id):
            return JobResponse(
                id=job_id,
                model=state.model,
                created=int(state.created),
                status=state.status,
                total=state.total,
                images=[GeneratedImage.linked(result, image_url(request, result)) for result in state.results],
                failures=state.failures,
            )
    raise Problem(404, "job-not-found", "No such job", "The job is unknown, or its results have expired.")
