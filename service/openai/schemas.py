"""OpenAI's image request and response, and their conversion to and from those of ``/generate``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from jobs.models import ImageFormat, ImageResult
from service.problems import InvalidFieldsError
from service.schemas.generate_request import GenerateRequest, Seed
from service.schemas.generate_response import Diversity, GeneratedImage

FIELDS = {"num_images": "n", "width": "size", "height": "size"}
# The values of OpenAI's options that hold for every model here; others are refused rather than ignored.
AsIs = Literal["auto", "standard"]


class ImagesRequest(BaseModel):
    """The body of ``POST /v1/images/generations``; ``seed`` is an addition to OpenAI's fields."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"prompt": "a smiling cat face", "n": 2, "response_format": "b64_json"}]},
    )

    prompt: str = Field(min_length=1, max_length=2000)
    model: str | None = Field(default=None, description="default: the served model")
    n: Annotated[int, Field(ge=1, le=64)] | None = 1
    size: str | None = Field(
        default=None, pattern="^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$", description="WIDTHxHEIGHT, or auto"
    )
    response_format: Literal["b64_json", "url"] | None = "b64_json"
    output_format: ImageFormat | None = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="quality of jpeg and webp"
    )
    stream: bool | None = Field(default=None, description="answer with server-sent events")
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = Field(
        default=None, description="how often a stream shows each image before it is finished"
    )
    seed: Seed | None = Field(default=None, description="image i uses seed + i; drawn at random when absent")
    user: str | None = Field(default=None, max_length=256, description="accepted, and not stored")
    quality: AsIs | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto", "low"] | None = None

    @model_validator(mode="after")
    def _only_streams_have_parts(self) -> Self:
        if self.partial_images and not self.stream:
            raise PydanticCustomError("stream", "partial_images needs stream")
        if self.stream and self.response_format == "url":
            raise PydanticCustomError("stream", "stream gives b64_json, not url")
        return self

    def as_generate(self) -> GenerateRequest:
        """The same request as one for ``/generate``."""
        width, height = None, None
        if self.size not in (None, "auto"):
            width, height = (int(side) for side in self.size.split("x"))
        return GenerateRequest(
            prompt=self.prompt,
            model=self.model,
            num_images=self.n or 1,
            seed=self.seed,
            width=width,
            height=height,
            format=self.output_format or "png",
            quality=max(1, self.output_compression) if self.output_compression is not None else 90,
            response="url" if self.response_format == "url" else "b64",
        )


@contextmanager
def openai_field_names() -> Iterator[None]:
    """Rename the fields of an InvalidFieldsError that is raised inside to those of OpenAI's request."""
    try:
        yield
    except InvalidFieldsError as invalid:
        errors = []
        for error in invalid.errors:
            renamed = error.model_copy(update={"field": FIELDS.get(error.field, error.field)})
            if renamed not in errors:  # width and height are one field there
                errors.append(renamed)
        raise InvalidFieldsError(errors) from None


class OpenAIImage(BaseModel):
    """One image; ``seed`` is an addition to OpenAI's fields."""

    b64_json: str | None = None
    url: str | None = None
    seed: int


class ImagesResponse(BaseModel):
    """OpenAI's response; ``created`` is a Unix time, ``diversity`` an addition to OpenAI's fields."""

    created: int
    data: list[OpenAIImage]
    output_format: ImageFormat
    size: str
    diversity: Diversity | None = None

    @classmethod
    def of(cls, created: float, results: list[ImageResult], images: list[GeneratedImage]) -> "ImagesResponse":
        first = results[0]
        return cls(
            created=int(created),
            data=[OpenAIImage(b64_json=image.b64, url=image.url, seed=image.seed) for image in images],
            output_format=first.format,
            size=f"{first.width}x{first.height}",
            diversity=Diversity.of(results),
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
