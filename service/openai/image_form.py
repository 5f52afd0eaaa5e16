"""The form of a call's images: as base64, by address, or both where the caller does not say."""

import base64
from dataclasses import dataclass
from typing import Literal

from fastapi import Request

from jobs.models import ImageResult
from service.context import base_url
from service.openai.schemas import OpenAIImage
from service.schemas.generate_response import GeneratedImage

# Clients that read a stream by lines refuse long ones: asyncio's default limit is 64 KiB, and other fields need room.
LONGEST_STREAMED_B64 = 60_000


@dataclass(frozen=True)
class ImageForm:
    """`asked` is the `response_format` of `request`; `events` begins the names of a stream's events."""

    request: Request
    asked: Literal["b64_json", "url"] | None
    events: Literal["image_generation", "image_edit"] = "image_generation"

    @property
    def inline(self) -> bool:
        return self.asked != "url"

    def image(self, result: ImageResult, b64: str | None) -> OpenAIImage:
        """The image in an answer; `b64` is its file as base64, None unless the form is inline."""
        return OpenAIImage(
            b64_json=b64,
            url=None if self.asked == "b64_json" else GeneratedImage.linked(result, base_url(self.request)).url,
            seed=result.seed,
        )

    def streamed(self, result: ImageResult, data: bytes | None) -> OpenAIImage:
        """The image in an event: its base64 only where the line stays short, unless the caller wants it.

        OpenAI's own libraries, known by a header, read lines of any length and promise ``b64_json`` in their types.
        """
        image = self.image(result, None if data is None else base64.b64encode(data).decode())
        wanted = self.asked == "b64_json" or "x-stainless-lang" in self.request.headers
        if wanted or len(image.b64_json or "") <= LONGEST_STREAMED_B64:
            return image
        return image.model_copy(update={"b64_json": None})
