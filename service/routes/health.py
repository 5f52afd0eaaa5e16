"""``/healthz``: whether the process is alive. ``/readyz``: whether a call would be served now."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from service.context import Context
from service.problems import Problem, problem_responses, store_unwritable

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    """The models with a warm worker."""

    status: str
    models: list[str]


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> Health:
    """The process is alive."""
    return Health(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=problem_responses(422, 503))
async def readyz(
    context: Context,
    workers: Annotated[int, Query(ge=0, le=1, description="0: also while no worker is warm, when calls wait")] = 1,
) -> Readiness:
    """Redis answers and takes writes, and the default model has a warm worker."""
    if not await context.catalogue.is_writable():
        raise store_unwritable()
    models = [model.card.name for model in await context.catalogue.ready()]
    if not models and workers:
        raise Problem(503, "no-worker", "Not ready", "No warm worker is connected; it may still be starting.")
    return Readiness(status="ready", models=models)
