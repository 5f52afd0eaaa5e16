"""The response of ``POST /generate``."""

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field

from jobs.diversity import METRIC, diversity_score
from jobs.models import Determinism, ImageFormat, ImageResult, Timings
from service.schemas.request_warnings import RequestWarning


class GeneratedImage(BaseModel):
    """One image: its bytes as ``b64``, or the ``url`` to fetch them from."""

    index: int
    seed: int
    width: int
    height: int
    format: ImageFormat
    sha256: str
    b64: str | None = None
    url: str | None = None

    @classmethod
    def inline(cls, result: ImageResult, b64: str) -> Self:
        return cls(**_common(result), b64=b64)

    @classmethod
    def linked(cls, result: ImageResult, base_url: str) -> Self:
        """The image by its absolute address; `base_url` is that of this server."""
        return cls(**_common(result), url=f"{base_url}/images/{result.sha256}.{result.format}")


class Diversity(BaseModel):
    """Diversity of the images of one call: 0 when all are the same; see docs/diversity.md."""

    score: float
    metric: str

    @classmethod
    def of(cls, results: Sequence[ImageResult]) -> Self | None:
        """The diversity of `results`, None for a single image."""
        if len(results) < 2:
            return None
        return cls(score=round(diversity_score([result.layout for result in results]), 4), metric=METRIC)


class GenerateResponse(BaseModel):
    """The body of the response; times are in seconds, ``created`` is a Unix time."""

    id: str
    model: str
    created: int
    images: list[GeneratedImage]
    diversity: Diversity | None = Field(default=None, description="of several images")
    timings: Timings
    determinism: Determinism
    warnings: list[RequestWarning] | None = Field(default=None, description="of what was not done as asked")


def call_timings(results: Sequence[ImageResult]) -> Timings:
    """The longest time of any image in each stage, and in total; images of one call share their batches."""
    stages = Timings.model_fields
    return Timings(**{stage: max(getattr(result.timings, stage) for result in results) for stage in stages})


def _common(result: ImageResult) -> dict:
    return result.model_dump(include={"index", "seed", "width", "height", "format", "sha256"})
