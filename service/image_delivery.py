"""Finished images in the form that a call asked for: inline or by address."""

import asyncio
from collections.abc import Sequence
from typing import Literal

from fastapi import Request

from jobs.models import ImageResult
from jobs.queue.job_client import JobClient
from service.context import ApiContext, base_url
from service.model_catalogue import AnnouncedModel
from service.problems import job_lost
from service.schemas.generate_response import GeneratedImage


async def deliver(
    form: Literal["b64", "url"], request: Request, model: AnnouncedModel, results: Sequence[ImageResult]
) -> list[GeneratedImage]:
    """The images of `results`, inline or by address; Problem 503 when their bytes have expired."""
    if form == "url":
        return [GeneratedImage.linked(result, base_url(request)) for result in results]
    images = await read_images(request.app.state.context, model.queue, results)
    return [GeneratedImage.inline(result, data) for result, data in zip(results, images, strict=True)]


async def read_images(context: ApiContext, queue: JobClient, results: Sequence[ImageResult]) -> list[bytes]:
    """The bytes of the images of `results`; Problem 503 when some have expired, ImageStoreError."""
    in_redis = await queue.images(results)
    found = await asyncio.gather(*(_read(context, *one) for one in zip(results, in_redis, strict=True)))
    images = [data for data in found if data is not None]
    if len(images) < len(results):
        raise job_lost()
    return images


async def _read(context: ApiContext, result: ImageResult, in_redis: bytes | None) -> bytes | None:
    if in_redis is not None or context.store is None:
        return in_redis
    return await context.store.get(result.sha256, result.format)
