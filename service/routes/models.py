"""``GET /models``: the announced models, with the settings in effect."""

from fastapi import APIRouter
from pydantic import BaseModel

from jobs.models import ModelCard, WorkerLease
from service.context import Context
from service.problems import problem_responses

router = APIRouter(tags=["models"])


class ServedModelResponse(ModelCard):
    """A model's card and its live workers."""

    workers: list[WorkerLease]


class ModelsResponse(BaseModel):
    models: list[ServedModelResponse]


@router.get("/models", responses=problem_responses(503))
async def list_models(context: Context) -> ModelsResponse:
    """All announced models; the first is the default."""
    return ModelsResponse(
        models=[
            ServedModelResponse(**model.card.model_dump(), workers=model.workers)
            for model in await context.catalogue.read()
        ]
    )
