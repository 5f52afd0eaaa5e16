"""Finished images in the form that a call asked for: inline or by address."""

from collections.abc import Sequence
from typing import Literal

from fastapi import Request

from jobs.models import ImageResult
from jobs.queue.job_client import JobClient
from service.context import base_url
from service.model_catalogue import AnnouncedModel
from service.problems import job_lost
from service.schemas.generate_response import GeneratedImage


async def deliver(
    form: Literal["b64", "url"], request: Request, model: AnnouncedModel, results: Sequence[ImageResult]
) -> list[GeneratedImage]:
    """The images of `results`, inline or by address; Problem 503 when their bytes have expired."""
    if form == "url":
        return [GeneratedImage.linked(result, base_url(request)) for result in results]
    images = await read_images(model.queue, results)
    return [GeneratedImage.inline(result, data) for result, data in zip(results, images, strict=True)]


async def read_images(queue: JobClient, results: Sequence[ImageResult]) -> list[bytes]:
    """The bytes of the images of `results`; Problem 503 when some have expired."""
    images = [data for data in await queue.images(results) if data is not None]
    if len(images) < len(results):
        raise job_lost()
    return images
