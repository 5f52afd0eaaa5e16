"""``/v1``: the endpoints that OpenAI's clients call. Errors have OpenAI's ``error`` beside the problem's members."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.sse import EventSourceResponse

from service.context import Context
from service.generation import Call, generate_while_connected
from service.idempotency import IdempotencyHeader, read_idempotency_key
from service.image_delivery import deliver
from service.middleware.api_keys import Caller
from service.openai.schemas import ImagesRequest, ImagesResponse, OpenAIModel, OpenAIModels, openai_field_names
from service.openai.stream import image_stream
from service.problems import Problem, problem_responses
from service.schemas.generate_request import image_tasks

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
STREAMED = {
    "description": "The images; with `stream`, events `image_generation.partial_image`, `image_generation.completed`",
    "content": {"text/event-stream": {"itemSchema": EVENT}},
}


@router.post(
    "/images/generations",
    response_model=ImagesResponse,
    response_model_exclude_none=True,
    responses={200: STREAMED, **problem_responses(400, 409, 413, 415, 422, 429, 500, 503, 504)},
)
async def create_images(
    body: ImagesRequest, request: Request, context: Context, caller: Caller, idempotency: IdempotencyHeader = None
) -> ImagesResponse | Response:
    """Make images as OpenAI's `images.generate` asks for them."""
    asked = body.as_generate()
    model = await context.catalogue.choose(asked.model)
    with openai_field_names():
        tasks = image_tasks(asked, model.card, context.settings)
    call = Call(context, request, model, tasks, read_idempotency_key(idempotency, caller, body))
    if body.stream:
        return await _streamed(call, body.partial_images or 0)
    state = await generate_while_connected(call)
    images = await deliver(asked.response, request, model, state.results)
    return ImagesResponse.of(state.created, state.results, images)


async def _streamed(call: Call, partial_images: int) -> Response:
    events = image_stream(call, partial_images)
    admitted = await anext(events)  # a refusal is raised here, and answered with its own status

    async def from_admission() -> AsyncIterator[bytes]:
        yield admitted
        async for event in events:
            yield event

    return EventSourceResponse(from_admission())


@router.get("/models", responses=problem_responses(503))
async def list_models(context: Context) -> OpenAIModels:
    """The announced models, the default first."""
    return OpenAIModels(data=[OpenAIModel(id=model.card.name) for model in await context.catalogue.read()])


@router.get("/models/{name:path}", responses=problem_responses(404, 422, 503))
async def get_model(name: str, context: Context) -> OpenAIModel:
    """One announced model."""
    for model in await context.catalogue.read():
        if model.card.name == name:
            return OpenAIModel(id=name)
    raise Problem(404, "model-not-found", "No such model", "No worker has announced a model of this name.")
