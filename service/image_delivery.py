"""Finished images on their way to the caller, read from Redis in parts: an answer in memory is never a whole one."""

import base64
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from jobs.models import ImageFormat, ImageResult
from jobs.queue.job_client import JobClient
from service.limits.room import Room
from service.problems import job_lost

# A multiple of 3, so that the parts' base64 is that of the whole.
PART_BYTES = 96 * 1024
# What an answer that is being written takes: a part, its base64, and what waits in the socket.
ANSWER_BYTES = 4 * PART_BYTES


@dataclass(frozen=True)
class InlineImages:
    """Images that stand in an answer as base64.

    The answer is made with a `mark` for each, and the images take their places while it is written.
    """

    queue: JobClient
    results: Sequence[ImageResult]
    sizes: list[int]
    heads: list[bytes]
    _mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    async def find(cls, queue: JobClient, results: Sequence[ImageResult]) -> "InlineImages":
        """The images of `results`; Problem 503 when some have expired."""
        share = PART_BYTES // max(1, len(results)) // 3 * 3
        heads = await queue.image_heads(results, share)
        if not all(size for size, _ in heads):
            raise job_lost()
        return cls(queue, results, [size for size, _ in heads], [head for _, head in heads])

    def mark(self, position: int) -> str:
        """The text that stands for the image at `position`."""
        return f"{self._mark}{position:04d}"

    def response(self, body: BaseModel, room: Room, request: Request) -> Response:
        """The answer `body`, whose images take at most their share of `room` of the caller of `request`."""
        text = body.model_dump_json(exclude_none=True).split(self._mark)
        # Each text but the first begins with the position of its image.
        texts = [text[0].encode(), *(part[4:].encode() for part in text[1:])]
        if all(len(head) == size for head, size in zip(self.heads, self.sizes, strict=True)):
            whole = b"".join(
                part
                for written, head in zip(texts, [*self.heads, b""], strict=True)
                for part in (written, base64.b64encode(head))
            )
            return Response(whole, media_type="application/json")
        length = sum(map(len, texts)) + sum(4 * -(-size // 3) for size in self.sizes)
        content = self._written(texts, room, request, length)
        return StreamingResponse(content, media_type="application/json", headers={"Content-Length": str(length)})

    async def _written(self, texts: list[bytes], room: Room, request: Request, length: int) -> AsyncIterator[bytes]:
        async with room.taken(request.state.caller, min(length, ANSWER_BYTES)):
            for position, (result, size) in enumerate(zip(self.results, self.sizes, strict=True)):
                yield texts[position]
                async for part in parts(self.queue, result.sha256, result.format, size, request):
                    yield base64.b64encode(part)
            yield texts[-1]


async def parts(
    queue: JobClient, sha256: str, image_format: ImageFormat, size: int, request: Request
) -> AsyncIterator[bytes]:
    """The bytes of a committed image of `size` bytes; breaks the answer to `request` off when it expires meanwhile."""
    for start in range(0, size, PART_BYTES):
        end = min(size, start + PART_BYTES)
        part = await queue.image_part(sha256, image_format, start, end)
        if len(part) < end - start:
            request.state.outcome = "error"
            raise ConnectionAbortedError("an image expired while it was sent")
        yield part


async def image_file(
    queue: JobClient, sha256: str, image_format: ImageFormat, request: Request, headers: dict[str, str]
) -> Response | None:
    """The answer that is the bytes of one committed image; None when it is unknown or has expired."""
    size, head = await queue.image_head(sha256, image_format, PART_BYTES)
    if not size:
        return None
    media_type = f"image/{image_format}"
    if len(head) == size:
        return Response(head, media_type=media_type, headers=headers)
    content = parts(queue, sha256, image_format, size, request)
    return StreamingResponse(content, media_type=media_type, headers=headers | {"Content-Length": str(size)})
