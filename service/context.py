"""Objects that all routes share, one of each per API process."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from jobs.image_store import ImageStore
from jobs.metrics import ApiMetrics
from jobs.queue.job_events import JobEvents
from jobs.settings import ApiSettings
from service.inputs.source_pictures import SourcePictures
from service.limits.room import Room
from service.limits.stream_count import StreamCount
from service.model_catalogue import ModelCatalogue


@dataclass(frozen=True)
class ApiContext:
    """The parts that all endpoints share. Images that are not in Redis are in the `store`, if there is one.

    `cancelling` holds the cancellations under way for clients that are gone; Redis stays open until they end.
    """

    settings: ApiSettings
    redis: Redis
    events: JobEvents
    catalogue: ModelCatalogue
    registry: CollectorRegistry
    metrics: ApiMetrics
    room: Room
    streams: StreamCount
    pictures: SourcePictures
    store: ImageStore | None = None
    cancelling: set[asyncio.Task[None]] = field(default_factory=set)


async def _context(request: Request) -> ApiContext:
    # Async, though it awaits nothing: FastAPI would send a plain function through its thread pool.
    return request.app.state.context


def base_url(request: Request) -> str:
    """The address of this server as the client of `request` knows it, without a slash at its end."""
    return request.app.state.context.settings.public_url or str(request.base_url).rstrip("/")


def job_location(job_id: str, request: Request) -> str:
    """The address of a job for a ``Location`` header, relative to this server where its public address is not set."""
    return f"{request.app.state.context.settings.public_url or ''}/jobs/{job_id}"


Context = Annotated[ApiContext, Depends(_context)]
