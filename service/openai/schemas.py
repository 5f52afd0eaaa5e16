"""OpenAI's image request and response, and their conversion to and from those of ``/generate``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from jobs.models import ImageFormat, JobState, Mode
from service.problems import FieldError, InvalidFieldsError
from service.schemas.generate_request import GenerateRequest, Seed, Select
from service.schemas.generate_response import Diversity
from service.schemas.request_warnings import RequestWarning
from service.schemas.sampling_options import SamplingOptions

About = TypeVar("About", FieldError, RequestWarning)

FIELDS = {"num_images": "n", "width": "size", "height": "size"}
# Hints that change nothing here, and those of their values that describe what is done anyway.
HINTS = {
    "quality": ("auto", "standard"),
    "style": (),
    "background": ("auto", "opaque"),
    "moderation": ("auto",),
    "input_fidelity": (),
    "user": (),
}
# OpenAI's clients expect these numbers, though tokens are not counted here.
NO_USAGE: dict[str, Any] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}

Hint = Annotated[str, Field(max_length=256)]


class ImagesRequest(SamplingOptions):
    """The body of ``POST /v1/images/generations``; the sampling options, ``seed``, ``seeds``, ``mode`` and ``select``
    are additions to OpenAI's fields.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,  # a prompt is never logged
        json_schema_extra={"examples": [{"prompt": "a smiling cat face", "n": 2, "response_format": "b64_json"}]},
    )

    prompt: str = Field(min_length=1, max_length=2000)
    model: str | None = Field(default=None, description="default: the served model")
    n: Annotated[int, Field(ge=1, le=64)] | None = None
    size: str | None = Field(
        default=None, pattern="^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$", description="WIDTHxHEIGHT, or auto"
    )
    response_format: Literal["b64_json", "url"] | None = Field(
        default=None, description="default: both; of a stream's events, b64_json only where it is short"
    )
    output_format: ImageFormat | None = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="quality of jpeg and webp"
    )
    stream: bool | None = Field(default=None, description="answer with server-sent events")
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = Field(
        default=None, description="how often a stream shows each image before it is finished"
    )
    seed: Seed | None = Field(default=None, description="image i uses seed + i; drawn at random when absent")
    seeds: list[Seed] | None = Field(
        default=None, min_length=1, max_length=64, description="one per image, instead of seed, n and select"
    )
    mode: Mode | None = Field(default=None, description="strict: the same pixels whatever shares the batch")
    select: Select | None = Field(default=None, description="a diverse set instead of consecutive seeds")
    quality: Hint | None = Field(default=None, description="not used: a model draws at its own quality")
    style: Hint | None = Field(default=None, description="not used: the prompt alone says the style")
    background: Hint | None = Field(default=None, description="not used: always opaque")
    moderation: Hint | None = Field(default=None, description="not used: the operator alone chooses what is refused")
    input_fidelity: Hint | None = Field(default=None, description="not used: no image is taken as input")
    user: Hint | None = Field(default=None, description="not used, and not stored")

    @model_validator(mode="after")
    def _only_streams_have_parts(self) -> Self:
        if self.partial_images and not self.stream:
            raise PydanticCustomError("stream", "partial_images needs stream")
        for other in ("seed", "n", "select"):
            if self.seeds is not None and getattr(self, other) is not None:
                raise PydanticCustomError("exclusive", f"give either seeds or {other}, not both")
        return self

    def unused_hints(self) -> list[RequestWarning]:
        """A warning for each hint that asks for something else than what is done anyway."""
        return [
            RequestWarning(field=name, message=f"{type(self).model_fields[name].description}")
            for name, as_is in HINTS.items()
            if getattr(self, name) not in (None, *as_is)
        ]

    def as_generate(self) -> GenerateRequest:
        """The same request as one for ``/generate``."""
        width, height = None, None
        if self.size not in (None, "auto"):
            width, height = (int(side) for side in self.size.split("x"))
        asked = {
            "prompt": self.prompt or " ",  # only a variation may have none
            "model": self.model,
            "num_images": self.n,
            "seed": self.seed,
            "seeds": self.seeds,
            "width": width,
            "height": height,
            "format": self.output_format,
            "quality": None if self.output_compression is None else max(1, self.output_compression),
            "mode": self.mode,
            "select": self.select,
            **{name: getattr(self, name) for name in SamplingOptions.model_fields},
        }
        return GenerateRequest(**{name: value for name, value in asked.items() if value is not None})


@contextmanager
def openai_field_names() -> Iterator[None]:
    """Rename the fields of an InvalidFieldsError that is raised inside to those of OpenAI's request."""
    try:
        yield
    except InvalidFieldsError as invalid:
        raise InvalidFieldsError(renamed(invalid.errors), invalid.limit) from None


def renamed(abouts: Sequence[About]) -> list[About]:
    """Errors or warnings with the names of OpenAI's fields; width and height are one field there."""
    found: list[About] = []
    for about in abouts:
        copy = about.model_copy(update={"field": FIELDS.get(about.field, about.field)})
        if copy not in found:
            found.append(copy)
    return found


class OpenAIImage(BaseModel):
    """One image; ``seed`` is an addition to OpenAI's fields."""

    b64_json: str | None = None
    url: str | None = None
    seed: int


class ImagesResponse(BaseModel):
    """OpenAI's response; ``created`` is a Unix time, ``diversity`` and ``warnings`` are additions to OpenAI's fields.

    ``usage`` is there for clients that read it, and always zero: tokens are not counted.
    """

    created: int
    data: list[OpenAIImage]
    output_format: ImageFormat
    size: str
    background: Literal["opaque"] = "opaque"
    usage: dict[str, Any] = NO_USAGE
    diversity: Diversity | None = None
    warnings: list[RequestWarning] | None = Field(default=None, description="of what was not done as asked")

    @classmethod
    def of(cls, state: JobState, images: list[OpenAIImage], warnings: list[RequestWarning]) -> Self:
        first = state.results[0]
        return cls(
            created=int(state.created),
            data=images,
            output_format=first.format,
            size=f"{first.width}x{first.height}",
            diversity=Diversity.of(state.results),
            warnings=warnings or None,
        )


class OpenAIModel(BaseModel):
    """One model in OpenAI's list. ``created`` is 0: a model folder has no date."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["fourstep"] = "fourstep"


class OpenAIModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenAIModel]
