"""Finished images as a call asked for them: inline or by address."""

from collections.abc import Sequence
from typing import Literal

from fastapi import Request

from jobs.models import ImageResult
from service.model_catalogue import ServedModel
from service.problems import job_lost
from service.schemas.generate_response import GeneratedImage


async def deliver(
    form: Literal["b64", "url"], request: Request, model: ServedModel, results: Sequence[ImageResult]
) -> list[GeneratedImage]:
    """The images of `results`; Problem 503 when their bytes have been forgotten."""
    if form == "url":
        return [GeneratedImage.linked(result, request) for result in results]
    images = []
    for result, data in zip(results, await model.queue.images(results), strict=True):
        if data is None:
            raise job_lost()
        images.append(GeneratedImage.inline(result, data))
    return images
