"""``POST /generate``: validate, admit, wait, answer."""

import json
from typing import Annotated, get_args

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from jobs.models import ImageFormat, JobState
from jobs.queue.job_client import JobClient
from service.accept import NotAcceptableError, accepted_image
from service.context import Context, base_url, job_location
from service.generation import Call, admit, finished_job, generate_while_connected, with_picture
from service.idempotency import IdempotencyHeader, read_idempotency_key
from service.image_delivery import InlineImages, image_file
from service.inputs.source_pictures import PictureInput
from service.middleware.api_keys import Caller
from service.problems import FieldError, InvalidFieldsError, Problem, job_lost, problem_responses
from service.schemas.generate_request import GenerateRequest, image_tasks
from service.schemas.generate_response import Diversity, GeneratedImage, GenerateResponse, call_timings
from service.schemas.job_response import JobResponse
from service.schemas.request_warnings import RequestWarning, unchanged_picture, unread_prompt, with_nearest_size
from service.webhooks.targets import webhook_target

router = APIRouter(tags=["images"])

DONE = {
    "description": "The images; with `Accept: image/...` and one image, its bytes",
    "content": {
        f"image/{name}": {"schema": {"type": "string", "format": "binary"}} for name in ("png", "jpeg", "webp")
    },
}
ACCEPTED = {
    "description": "Queued, because of `Prefer: respond-async`",
    "model": JobResponse,
    "headers": {"Location": {"schema": {"type": "string"}, "description": "the job's address"}},
}


@router.post(
    "/generate",
    response_model=GenerateResponse,
    response_model_exclude_none=True,
    responses={200: DONE, 202: ACCEPTED, **problem_responses(400, 406, 409, 413, 415, 422, 429, 500, 503, 504)},
)
async def generate(
    body: GenerateRequest,
    request: Request,
    context: Context,
    caller: Caller,
    idempotency: IdempotencyHeader = None,
    prefer: Annotated[str, Header(alias="Prefer", description="`respond-async`: do not wait, answer 202")] = "",
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",  # OpenAPI derives it from the answers' types
) -> GenerateResponse | Response:
    """Make images of a prompt and wait for them.

    With `Accept: image/png` (or `image/jpeg`, `image/webp`) the answer is the bytes of the only image.
    """
    model = await context.catalogue.choose(body.model)
    raw = _accepted_image(accept, body)
    if raw:
        body = _as_raw(body, raw)
    asynchronous = _respond_async(prefer)
    key = read_idempotency_key(idempotency, caller, body)
    body, warnings = with_nearest_size(body, model.card, context.settings)
    tasks = image_tasks(body, model.card, context.settings, asynchronous=asynchronous)
    webhook = webhook_target(body.webhook, caller, request, context.settings, asynchronous=asynchronous)
    call = Call(context, request, model, tasks, key, webhook, images_field=body.images_field)
    if body.image is not None:
        call = await with_picture(call, PictureInput(body.image, body.mask, body.strength))
        warnings = [*warnings, *unchanged_picture(call.tasks, model.card)]
    if asynchronous:
        state = await _admit_only(call)
        if not state.settled:
            return _accepted(state, request, warnings)
    else:
        state = await generate_while_connected(call)
    warnings = [*warnings, *unread_prompt(state.results)]
    queue = context.catalogue.queue(state.model)
    if raw:
        return await _image_alone(queue, state, warnings, request)
    inline = await InlineImages.find(queue, state.results) if body.response == "b64" else None
    answer = GenerateResponse(
        id=state.id,
        model=state.model,
        created=int(state.created),
        images=[
            GeneratedImage.inline(result, inline.mark(position))
            if inline
            else GeneratedImage.linked(result, base_url(request))
            for position, result in enumerate(state.results)
        ],
        diversity=Diversity.of(state.results),
        timings=call_timings(state.results),
        determinism=state.results[0].determinism,
        warnings=warnings or None,
    )
    return inline.response(answer, context.room, request) if inline else answer


def _accepted_image(accept: str, body: GenerateRequest) -> ImageFormat | None:
    try:
        return accepted_image(accept, body.format)
    except NotAcceptableError:
        detail = f"Accept asks for {accept}; there are image/{', image/'.join(get_args(ImageFormat))} and JSON."
        raise Problem(406, "not-acceptable", "No such format", detail) from None


def _as_raw(body: GenerateRequest, raw: ImageFormat) -> GenerateRequest:
    """The request for an image of kind `raw`; a Problem when it asks for another kind, or for several images."""
    if "format" in body.model_fields_set and body.format != raw:
        raise Problem(406, "not-acceptable", "Two formats", f"Accept asks for image/{raw}, the body for {body.format}.")
    if body.num_images > 1 or len(body.seeds or [1]) > 1:
        field = "num_images" if body.seeds is None else "seeds"
        raise InvalidFieldsError([FieldError(field=field, message=f"one image when Accept is image/{raw}", limit=1)])
    return body.model_copy(update={"format": raw})


def _respond_async(prefer: str) -> bool:
    preferences = (preference.partition(";")[0].strip().lower() for preference in prefer.split(","))
    return "respond-async" in preferences


async def _admit_only(call: Call) -> JobState:
    admission = await admit(call)
    if admission.outcome == "finished":
        return await finished_job(call, admission)
    return JobState(
        id=call.job_id,
        model=call.model.card.name,
        created=admission.created or call.tasks[0].created,
        total=sum(len(task.indices) for task in call.tasks),
        started=False,
        results=[],
        failures=[],
    )


def _accepted(queued: JobState, request: Request, warnings: list[RequestWarning]) -> Response:
    content = JobResponse.of(queued, base_url(request), warnings).model_dump(mode="json", exclude_none=True)
    headers = {"Location": job_location(queued.id, request), "Preference-Applied": "respond-async"}
    return JSONResponse(content, status_code=202, headers=headers)


async def _image_alone(queue: JobClient, state: JobState, warnings: list[RequestWarning], request: Request) -> Response:
    (result,) = state.results
    headers = {"Fourstep-Id": state.id, "Fourstep-Seed": str(result.seed), "ETag": f'"{result.sha256}"'}
    if warnings:
        headers["Fourstep-Warnings"] = json.dumps([warning.model_dump() for warning in warnings])
    answer = await image_file(queue, result.sha256, result.format, request, headers)
    if answer is None:
        raise job_lost()
    return answer
