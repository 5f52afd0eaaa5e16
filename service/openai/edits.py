"""OpenAI's edits and variations: forms with a picture, read as requests for images that begin from it."""

import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.inputs.picture_files import PictureLimits, refused, too_large
from service.inputs.source_pictures import PictureInput
from service.openai.schemas import Hint, ImagesRequest
from service.problems import FieldError, Problem

FORM = "multipart/form-data"
MAX_FILES, MAX_FIELDS, MAX_FIELD_BYTES = 4, 64, 64 * 1024
# What the parser says of each limit, and what the caller is told.
LIMITS = (
    ("Too many files", f"at most {MAX_FILES} files", MAX_FILES),
    ("Too many fields", f"at most {MAX_FIELDS} fields", MAX_FIELDS),
    ("Part exceeded", f"at most {MAX_FIELD_BYTES} bytes in a field that is no file", MAX_FIELD_BYTES),
)
LISTS = ("seeds",)
PYTHONS_BOOLEANS = {"True": True, "False": False}
"""As Python's clients write a boolean in a form."""
PART_OF_SELECT = re.compile(r"select\[(\w+)\]")

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
    limited = {"max_files": MAX_FILES, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
    try:
        form = await _InMemory(_boundary_alone(request), request.stream(), **limited).parse()
    except MultiPartException as error:
        errors = [
            FieldError(field="body", message=text, limit=most) for kind, text, most in LIMITS if kind in error.message
        ]
        raise Problem(400, "malformed-form", "The body is not a form", error.message, errors or None) from None
    try:
        fields: dict[str, list[Any]] = {}
        for name, value in form.multi_items():
            name = name.removesuffix("[]")
            read = await _file(value, name, limits) if isinstance(value, UploadFile) else value
            if len(read) or _is_required(kind, name):
                fields.setdefault(name, []).append(read)
        yield _validated(kind, _with_select({name: _value(name, values) for name, values in fields.items()}))
    finally:
        await form.close()


def form_description(kind: type[ImageVariationRequest]) -> dict[str, Any]:
    """The OpenAPI description of a body that is the form `kind`."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # all of them are described with the other endpoints
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


def _boundary_alone(request: Request) -> Headers:
    """The header of the form without what else it may name: the parser would decode the fields by any codec of Python.

    Raises a Problem for a body that is no form.
    """
    content_type = request.headers.get("content-type", "")
    kind, options = parse_options_header(content_type)
    if kind.decode("latin-1").strip().lower() != FORM:
        detail = f"Send Content-Type: {FORM}, not {content_type or 'none'}."
        raise Problem(415, "unsupported-media-type", "The body must be a form", detail)
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not re.fullmatch(r"[ !#-\[\]-~]+", boundary):
        detail = "Content-Type must name the form's boundary, in printable ASCII without quotes."
        raise Problem(400, "malformed-form", "The body is not a form", detail)
    return Headers({"Content-Type": f'{FORM}; boundary="{boundary}"'})


def _validated(kind: type[AnyForm], fields: dict[str, Any]) -> AnyForm:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False)) from None


async def _file(file: UploadFile, field: str, limits: PictureLimits) -> bytes:
    if (file.size or 0) > limits.max_bytes:
        raise too_large(field, "bytes", limits.max_bytes)
    return await file.read()


def _value(name: str, values: list[Any]) -> Any:
    """The value of a field, which a form may repeat."""
    if name == "image" and len(values) > 1:
        raise refused(name, "one picture", 1)
    return values if name in LISTS else values[-1]


def _is_required(kind: type[ImageVariationRequest], name: str) -> bool:
    """Return whether an empty value counts as one: elsewhere it is that of a field that was left empty."""
    return name not in kind.model_fields or kind.model_fields[name].is_required()


def _with_select(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with `select` as an object: forms have it as JSON, or each of its parts as ``select[part]``."""
    parts = {part[1]: name for name in fields if (part := PART_OF_SELECT.fullmatch(name))}
    if parts:
        select = {part: _json(fields.pop(name)) for part, name in parts.items()}
        return {"select": select, **fields}
    return fields | {"select": _json(fields["select"])} if "select" in fields else fields


def _json(text: Any) -> Any:
    """The value that the text of a form stands for; any other text as it is."""
    if text in PYTHONS_BOOLEANS:
        return PYTHONS_BOOLEANS[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
