"""``GET /usage``: what the caller has had of each model."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from jobs.queue.callers.usage import Usage, read_usage
from service.context import Context
from service.middleware.api_keys import Caller
from service.problems import problem_responses

router = APIRouter(tags=["usage"])


class ModelUsage(BaseModel):
    """Images of one model, and the seconds that they kept its devices busy: images of one batch share its time."""

    model: str
    images: int
    work_seconds: float


class UsageResponse(BaseModel):
    key: str = Field(description="the first eight digits of the SHA-256 of the API key; empty without keys")
    models: list[ModelUsage]


@router.get("/usage", responses=problem_responses(503))
async def get_usage(context: Context, caller: Caller) -> UsageResponse:
    """The usage of this API key since the server's Redis began; without keys, of everybody."""
    used = []
    for queue in await context.catalogue.queues():
        usage = (await read_usage(context.redis, queue.model)).get(caller, Usage())
        used.append(ModelUsage(model=queue.model, images=usage.images, work_seconds=round(usage.work_s, 3)))
    return UsageResponse(key=caller[:8], models=used)
