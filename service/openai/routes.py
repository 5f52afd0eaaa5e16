"""``/v1``: the endpoints that OpenAI's clients call. Errors have OpenAI's ``error`` beside the problem's members."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.sse import EventSourceResponse

from service.context import ApiContext, Context
from service.generation import Call, generate_while_connected, with_picture
from service.idempotency import IdempotencyHeader, read_idempotency_key
from service.image_delivery import InlineImages
from service.inputs.source_pictures import PictureInput
from service.middleware.api_keys import Caller
from service.model_catalogue import AnnouncedModel
from service.openai.edits import ImageEditRequest, ImageVariationRequest, form_description, read_form
from service.openai.image_form import ImageForm
from service.openai.schemas import (
    ImagesRequest,
    ImagesResponse,
    OpenAIModel,
    OpenAIModels,
    openai_field_names,
    renamed,
)
from service.openai.stream import image_stream
from service.problems import UnknownModelError, problem_responses
from service.schemas.generate_request import image_tasks
from service.schemas.request_warnings import RequestWarning, unchanged_picture, unread_prompt, with_nearest_size

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

ERRORS = problem_responses(400, 404, 409, 413, 415, 422, 429, 500, 503, 504)
EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
STREAMED = {
    "description": "The images; with `stream`, events `image_generation.partial_image`, `image_generation.completed`",
    "content": {"text/event-stream": {"itemSchema": EVENT}},
}

EDIT_STREAMED = {
    "description": "The images; with `stream`, events `image_edit.partial_image`, `image_edit.completed`",
    "content": STREAMED["content"],
}

# Proxies pass each event on at once.
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@router.post(
    "/images/generations",
    response_model=ImagesResponse,
    response_model_exclude_none=True,
    responses={200: STREAMED, **ERRORS},
)
async def create_images(
    body: ImagesRequest, request: Request, context: Context, caller: Caller, idempotency: IdempotencyHeader = None
) -> ImagesResponse | Response:
    """Make images as OpenAI's `images.generate` asks for them."""
    return await _images(body, request, context, caller, idempotency)


@router.post(
    "/images/edits",
    response_model=ImagesResponse,
    response_model_exclude_none=True,
    responses={200: EDIT_STREAMED, **ERRORS},
    openapi_extra=form_description(ImageEditRequest),
)
async def edit_image(
    request: Request, context: Context, caller: Caller, idempotency: IdempotencyHeader = None
) -> ImagesResponse | Response:
    """Paint a picture, or what a mask leaves free of it, anew, as OpenAI's `images.edit` asks for it."""
    async with read_form(ImageEditRequest, request, context.pictures.limits) as body:
        return await _images(body, request, context, caller, idempotency, body.picture)


@router.post(
    "/images/variations",
    response_model=ImagesResponse,
    response_model_exclude_none=True,
    responses={200: EDIT_STREAMED, **ERRORS},
    openapi_extra=form_description(ImageVariationRequest),
)
async def vary_image(
    request: Request, context: Context, caller: Caller, idempotency: IdempotencyHeader = None
) -> ImagesResponse | Response:
    """Make images like a picture, as OpenAI's `images.create_variation` asks for them."""
    async with read_form(ImageVariationRequest, request, context.pictures.limits) as body:
        return await _images(body, request, context, caller, idempotency, body.picture)


async def _images(
    body: ImagesRequest,
    request: Request,
    context: ApiContext,
    caller: str,
    idempotency: str | None,
    picture: PictureInput | None = None,
) -> ImagesResponse | Response:
    """The answer to a call, whose images begin from its `picture` if it has one."""
    model = await _choose(context, body.model)
    asked, warnings = with_nearest_size(body.as_generate(), model.card, context.settings)
    warnings = [*body.unused_hints(), *renamed(warnings)]
    with openai_field_names():
        tasks = image_tasks(asked, model.card, context.settings)
    key, images_field = read_idempotency_key(idempotency, caller, body), "n" if asked.seeds is None else "seeds"
    call = Call(context, request, model, tasks, key, images_field=images_field)
    if picture:
        call = await with_picture(call, picture)
        warnings += unchanged_picture(call.tasks, model.card)
    form = ImageForm(request, body.response_format, "image_edit" if picture else "image_generation")
    if body.stream:
        return await _streamed(call, form, body.partial_images or 0, warnings)
    state = await generate_while_connected(call)
    warnings = [*warnings, *unread_prompt(state.results)]
    if not form.inline:
        return ImagesResponse.of(state, [form.image(result, None) for result in state.results], warnings)
    inline = await InlineImages.find(context.catalogue.queue(state.model), state.results)
    images = [form.image(result, inline.mark(position)) for position, result in enumerate(state.results)]
    return inline.response(ImagesResponse.of(state, images, warnings), context.room, request)


async def _choose(context: ApiContext, name: str | None) -> AnnouncedModel:
    try:
        return await context.catalogue.choose(name)
    except UnknownModelError as unknown:
        raise unknown.as_not_found() from None


async def _streamed(call: Call, form: ImageForm, partial_images: int, warnings: list[RequestWarning]) -> Response:
    events = image_stream(call, form, partial_images, warnings)
    admitted = await anext(events)  # a refusal is raised here, and answered with its own status

    async def from_admission() -> AsyncIterator[bytes]:
        yield admitted
        async for event in events:
            yield event

    return EventSourceResponse(from_admission(), headers=UNBUFFERED)


@router.get("/models", responses=problem_responses(503))
async def list_openai_models(context: Context) -> OpenAIModels:
    """The announced models, the default first."""
    return OpenAIModels(data=[OpenAIModel(id=model.card.name) for model in await context.catalogue.read()])


@router.get("/models/{name:path}", responses=problem_responses(404, 422, 503))
async def get_openai_model(name: str, context: Context) -> OpenAIModel:
    """One announced model, also by an alias."""
    await _choose(context, name)
    return OpenAIModel(id=name)
