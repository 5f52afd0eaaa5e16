"""What the routes share: one of each per API process."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from jobs.job_events import JobEvents
from jobs.metrics import ApiMetrics
from jobs.settings import ApiSettings
from service.model_catalogue import ModelCatalogue


@dataclass(frozen=True)
class ApiContext:
    settings: ApiSettings
    redis: Redis
    events: JobEvents
    catalogue: ModelCatalogue
    registry: CollectorRegistry
    metrics: ApiMetrics


async def _context(request: Request) -> ApiContext:
    # Async, though it awaits nothing: FastAPI would send a plain function through its thread pool.
    return request.app.state.context


Context = Annotated[ApiContext, Depends(_context)]
