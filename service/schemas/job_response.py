"""The response of ``/jobs/{id}``."""

from typing import Self

from pydantic import BaseModel, Field

from jobs.models import ImageFailure, JobState, JobStatus
from service.schemas.generate_response import Diversity, GeneratedImage
from service.schemas.request_warnings import RequestWarning, unread_prompt


class JobResponse(BaseModel):
    """A job's status, and the images made so far."""

    id: str
    model: str
    created: int
    status: JobStatus
    total: int
    images: list[GeneratedImage]
    diversity: Diversity | None = Field(default=None, description="of several finished images")
    failures: list[ImageFailure]
    warnings: list[RequestWarning] | None = Field(
        default=None,
        description="of what is not done as asked; once it is queued, of its prompt alone",
    )

    @classmethod
    def of(cls, state: JobState, base_url: str, warnings: list[RequestWarning] | None = None) -> Self:
        """The response for a server that its client reaches at `base_url`."""
        return cls(
            id=state.id,
            model=state.model,
            created=int(state.created),
            status=state.status,
            total=state.total,
            images=[GeneratedImage.linked(result, base_url) for result in state.results],
            diversity=Diversity.of(state.results),
            failures=state.failures,
            warnings=[*(warnings or []), *unread_prompt(state.results)] or None,
        )
