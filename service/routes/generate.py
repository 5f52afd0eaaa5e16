"""``POST /generate``: validate, admit, wait, answer."""

import time
from collections.abc import Sequence

from fastapi import APIRouter, Request

from jobs.models import ImageResult, JobState
from service.context import Context
from service.generate_request import GenerateRequest, image_tasks
from service.generate_response import GeneratedImage, GenerateResponse, call_timings
from service.model_catalogue import ServedModel
from service.problems import Problem, overloaded, problem_responses
from service.routes.images import image_url
from service.waiting import expired, wait_until_settled

router = APIRouter(tags=["images"])


@router.post(
    "/generate",
    response_model=GenerateResponse,
    response_model_exclude_none=True,
    responses=problem_responses(400, 413, 415, 422, 429, 500, 503, 504),
)
async def generate(body: GenerateRequest, request: Request, context: Context) -> GenerateResponse:
    """Make images of a prompt and wait for them."""
    began = time.monotonic()
    model = await context.catalogue.choose(body.model)
    tasks = image_tasks(body, model.card, context.settings)
    job_id, deadline = tasks[0].job_id, tasks[0].deadline
    assert deadline is not None
    with context.events.listen(job_id) as listener:
        admission = await model.queue.admit(
            tasks,
            context.settings.max_queued_images,
            context.settings.result_ttl_s,
            context.events.channel,
        )
        if not admission.ok:
            raise _queue_full(admission.queued_images, context.settings.max_queued_images)
        state = await wait_until_settled(model.queue, listener, job_id, deadline)
    _raise_failure(state)
    return GenerateResponse(
        id=job_id,
        model=model.card.name,
        created=int(tasks[0].created),
        images=await _images(body, request, model, state.results),
        timings=call_timings(state.results, time.monotonic() - began),
        determinism=state.results[0].determinism,
    )


def _queue_full(queued: int, bound: int) -> Problem:
    return overloaded("queue-full", f"{queued} images are waiting, at most {bound} may (max_queued_images).")


def _raise_failure(state: JobState) -> None:
    for failure in state.failures:
        if failure.reason == "expired":
            raise expired()
        detail = f"Image {failure.index}: {failure.detail}"
        raise Problem(500, f"generation-{failure.reason}", "An image could not be made", detail)


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
