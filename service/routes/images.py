"""``GET /images/{sha256}.{format}``: finished images by the hash of their bytes, so that an address is immutable."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import Response

from jobs.models import ImageFormat
from service.context import Context
from service.image_delivery import image_file
from service.problems import Problem, problem_responses

router = APIRouter(tags=["images"])

BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.head("/images/{sha256}.{image_format}", include_in_schema=False)
@router.get(
    "/images/{sha256}.{image_format}",
    response_class=Response,
    responses={
        200: {"content": {f"image/{name}": BINARY for name in ("png", "jpeg", "webp")}},
        304: {"description": "Not Modified"},
        307: {"description": "To the bucket that the image is kept in, with `FOURSTEP_IMAGE_REDIRECT`"},
        **problem_responses(404, 422, 503),
    },
)
async def get_image(
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
    image_format: ImageFormat,
    context: Context,
    request: Request,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The bytes of an image, for as long as results are kept."""
    etag = f'"{sha256}"'
    headers = {"ETag": etag, "Cache-Control": "public, max-age=31536000, immutable"}
    if if_none_match is not None and etag in if_none_match:
        return Response(status_code=304, headers=headers)
    if context.settings.image_redirect and context.store:
        method: Literal["GET", "HEAD"] = "HEAD" if request.method == "HEAD" else "GET"
        if url := await context.store.signed_url(sha256, image_format, method):
            return Response(status_code=307, headers={"Location": url, "Cache-Control": "no-store"})
    for queue in await context.catalogue.queues():
        if answer := await image_file(queue, sha256, image_format, request, headers):
            return answer
    raise Problem(404, "image-not-found", "No such image", "The image is unknown, or has expired.")
