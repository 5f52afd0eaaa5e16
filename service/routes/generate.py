"""``POST /generate``: validate, admit, wait, answer."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from jobs.models import ImageResult, ImageTask, JobState
from service.context import ApiContext, Context
from service.generate_request import GenerateRequest, image_tasks
from service.generate_response import GeneratedImage, GenerateResponse, call_timings
from service.generation import admit, generate_while_connected
from service.job_response import JobResponse
from service.model_catalogue import ServedModel
from service.problems import Problem, problem_responses
from service.routes.images import image_url

router = APIRouter(tags=["images"])

ACCEPTED = {
    "description": "Queued, because of `Prefer: respond-async`",
    "model": JobResponse,
    "headers": {"Location": {"schema": {"type": "string"}, "description": "the job's address"}},
}


@router.post(
    "/generate",
    response_model=GenerateResponse,
    response_model_exclude_none=True,
    responses={202: ACCEPTED, **problem_responses(400, 409, 413, 415, 422, 429, 500, 503, 504)},
)
async def generate(
    body: GenerateRequest,
    request: Request,
    context: Context,
    prefer: Annotated[str, Header(description="`respond-async`: do not wait, answer 202")] = "",
) -> GenerateResponse | Response:
    """Make images of a prompt and wait for them."""
    model = await context.catalogue.choose(body.model)
    tasks = image_tasks(body, model.card, context.settings)
    if _respond_async(prefer):
        return await _accept(context, request, model, tasks)
    state = await generate_while_connected(context, request, model, tasks)
    return GenerateResponse(
        id=state.id,
        model=state.model,
        created=int(state.created),
        images=await _images(body, request, model, state.results),
        timings=call_timings(state.results),
        determinism=state.results[0].determinism,
    )


def _respond_async(prefer: str) -> bool:
    preferences = (preference.partition(";")[0].strip().lower() for preference in prefer.split(","))
    return "respond-async" in preferences


async def _accept(context: ApiContext, request: Request, model: ServedModel, tasks: Sequence[ImageTask]) -> Response:
    await admit(context, model, tasks)
    first = tasks[0]
    queued = JobState(
        id=first.job_id,
        model=model.card.name,
        created=first.created,
        total=len(tasks),
        started=False,
        results=[],
        failures=[],
    )
    content = JobResponse.of(queued, request).model_dump(mode="json", exclude_none=True)
    headers = {"Location": f"/jobs/{first.job_id}", "Preference-Applied": "respond-async"}
    return JSONResponse(content, status_code=202, headers=headers)


async def _images(
    body: GenerateRequest, request: Request, model: ServedModel, results: Sequence[ImageResult]
) -> list[GeneratedImage]:
    if body.response == "url":
        return [GeneratedImage.linked(result, image_url(request, result)) for result in results]
    images = []
    for result, data in zip(results, await model.queue.images(results), strict=True):
        if data is None:
            raise Problem(503, "job-lost", "The job is gone", "Redis no longer holds the images; send the call again.")
        images.append(GeneratedImage.inline(result, data))
    return images
