"""OpenAI's edits and variations: forms with a picture, read as requests for images that begin from it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.inputs.picture_files import PictureLimits, refused
from service.inputs.source_pictures import PictureInput
from service.openai.schemas import Hint, ImagesRequest
from service.problems import Problem

FORM = "multipart/form-data"
MAX_FILES, MAX_FIELDS, MAX_FIELD_BYTES = 4, 64, 64 * 1024
LISTS = ("seeds",)

Strength = Annotated[float, Field(ge=0, le=1)]


class ImageVariationRequest(ImagesRequest):
    """The form of ``POST /v1/images/variations``; ``prompt`` and ``strength`` are additions to OpenAI's fields."""

    model_config = ConfigDict(strict=False, json_schema_extra={"examples": []})

    prompt: str = Field(default="", max_length=2000, description="what the variations are to show")
    image: bytes = Field(description="the picture to begin from: PNG, JPEG or WebP")
    strength: Strength | None = Field(default=None, description="how much of the picture changes; default: 0.75")

    @property
    def picture(self) -> PictureInput:
        return PictureInput(self.image, strength=self.strength)


class ImageEditRequest(ImageVariationRequest):
    """The form of ``POST /v1/images/edits``; ``strength`` is an addition to OpenAI's fields."""

    prompt: str = Field(min_length=1, max_length=2000)
    mask: bytes | None = Field(
        default=None,
        description="a picture of the image's size: what is transparent, or without transparency white, is painted "
        "anew. Default: what is transparent in the image",
    )
    strength: Strength | None = Field(
        default=None, description="how much of what may change does; default: 0.75, and 1 where a part is masked"
    )
    input_fidelity: Hint | None = Field(default=None, description="not used: strength says how much may change")

    @property
    def picture(self) -> PictureInput:
        return PictureInput(self.image, self.mask, self.strength, transparent_is_mask=True)


class _InMemory(MultiPartParser):
    """Writes no file to disk: a body is bounded, and takes room in memory (service.middleware.body_limit)."""

    spool_max_size = sys.maxsize


AnyForm = TypeVar("AnyForm", bound=ImageVariationRequest)


@asynccontextmanager
async def read_form(kind: type[AnyForm], request: Request, limits: PictureLimits) -> AsyncIterator[AnyForm]:
    """The form of a request; its files are closed at the end.

    Raises a Problem for a body that is no such form, InvalidFieldsError for a file beyond the limit and
    RequestValidationError for fields that do not fit.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith(FORM):
        detail = f"Send Content-Type: {FORM}, not {content_type or 'none'}."
        raise Problem(415, "unsupported-media-type", "The body must be a form", detail)
    limited = {"max_files": MAX_FILES, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
    try:
        form = await _InMemory(request.headers, request.stream(), **limited).parse()
    except MultiPartException as error:
        raise Problem(400, "malformed-form", "The body is not a form", error.message) from None
    try:
        fields: dict[str, list[Any]] = {}
        for name, value in form.multi_items():
            name = name.removesuffix("[]")
            read = await _file(value, name, limits) if isinstance(value, UploadFile) else value
            fields.setdefault(name, []).append(read)
        yield _validated(kind, {name: _value(name, values) for name, values in fields.items()})
    finally:
        await form.close()


def form_description(kind: type[ImageVariationRequest]) -> dict[str, Any]:
    """The OpenAPI description of a body that is the form `kind`."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # all of them are described with the other endpoints
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


def _validated(kind: type[AnyForm], fields: dict[str, Any]) -> AnyForm:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False)) from None


async def _file(file: UploadFile, field: str, limits: PictureLimits) -> bytes:
    if (file.size or 0) > limits.max_bytes:
        raise refused(field, f"at most {limits.max_bytes} bytes", limits.max_bytes)
    return await file.read()


def _value(name: str, values: list[Any]) -> Any:
    """The value of a field, which a form may repeat."""
    if name == "image" and len(values) > 1:
        raise refused(name, "one picture", 1)
    return values if name in LISTS else values[-1]
