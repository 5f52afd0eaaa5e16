"""The request of ``POST /generate``, and its translation into image tasks."""

import secrets
import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from jobs.models import LONGEST_WAIT_S, MAX_SEED, DiverseSet, ImageFormat, ImageTask, Mode, ModelCard
from jobs.settings import ApiSettings
from jobs.tracing import current_traceparent
from service.problems import FieldError, InvalidFieldsError
from service.schemas.bounded_fields import BoundedFields
from service.schemas.sampling_options import (
    SamplingOptions,
    own_guidance_scale,
    own_negative_prompt,
    sampling_errors,
)

# Bound of drawn seeds: short enough to be typed, and exact in JavaScript.
RANDOM_SEEDS = 2**32

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]

MAX_CANDIDATES = 64
CANDIDATES_PER_IMAGE = 4

# Bound of a waiting call's timeout, in seconds.
LONGEST_TIMEOUT_S = 600

SEEDS_AND_THE_OTHERS: JsonDict = {
    "required": ["seeds"],
    "properties": {"seeds": {"type": "array"}},
    "anyOf": [{"required": ["seed"]}, {"required": ["num_images"]}, {"required": ["select"]}],
}


class Select(BoundedFields):
    """Choice of a call's images among more candidates than it asks for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    diverse: Literal[True] = Field(
        description="choose the `num_images` candidates that are farthest apart, as predicted after the first step"
    )
    candidates: int | None = Field(
        default=None,
        ge=1,
        le=MAX_CANDIDATES,
        description="seeds from `seed` on, at least num_images; default: 4 per image, at most 64",
    )


class GenerateRequest(SamplingOptions):
    """The JSON body of ``POST /generate``. Sizes are pixels, ``timeout`` seconds."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,  # a prompt is never logged
        json_schema_extra={
            "examples": [{"prompt": "a smiling cat face", "seed": 7, "num_images": 4}],
            "not": SEEDS_AND_THE_OTHERS,
        },
    )

    prompt: str = Field(min_length=1, max_length=2000)
    num_images: int = Field(default=1, ge=1, le=64)
    seed: Seed | None = Field(default=None, description="image i uses seed + i; drawn at random when absent")
    seeds: list[Seed] | None = Field(
        default=None, min_length=1, max_length=64, description="one per image, instead of seed, num_images and select"
    )
    model: str | None = Field(default=None, description="default: the served model")
    width: int | None = Field(default=None, ge=1, description="default: the model's native width")
    height: int | None = Field(default=None, ge=1, description="default: the model's native height")
    format: ImageFormat = "png"
    quality: int = Field(default=90, ge=1, le=100, description="of jpeg and webp")
    response: Literal["b64", "url"] = "b64"
    image: str | None = Field(
        default=None,
        description="a picture to begin from: base64 of a PNG, JPEG or WebP, or `<sha256>.<format>`, by which "
        "an image that was made here is known. It is scaled to cover the size, and cut off evenly",
    )
    strength: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="how much of `image` changes: 0 nothing, 1 all; the nearest of the model's `noise_levels` counts. "
        "Default: 0.75, and 1 with a mask",
    )
    mask: str | None = Field(
        default=None,
        description="what of `image` is painted anew: a picture of its size, given as it is; transparent, or without "
        "transparency white, is painted, the rest stays",
    )
    mode: Mode = Field(default="fast", description="strict: the same pixels whatever shares the batch")
    select: Select | None = Field(default=None, description="a diverse set instead of consecutive seeds")
    timeout: float | None = Field(
        default=None,
        gt=0,
        description="seconds until the call ends with 504, at most 600; default: the server's `FOURSTEP_TIMEOUT_S`. "
        "With `Prefer: respond-async`: seconds after which what is not begun expires, at most 600 or as long as "
        "results are kept (`FOURSTEP_RESULT_TTL_S`), whichever is longer; default: a week",
    )

    webhook: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="https address that is sent the job's end; with `Prefer: respond-async` only",
    )

    @property
    def images_field(self) -> str:
        """The field that says how many images are made."""
        return "num_images" if self.seeds is None else "seeds"

    @model_validator(mode="after")
    def _seeds_stand_alone(self) -> Self:
        for other in ("seed", "num_images", "select"):
            if self.seeds is not None and other in self.model_fields_set:
                raise PydanticCustomError("exclusive", f"give either seeds or {other}, not both")
        return self


def image_tasks(
    request: GenerateRequest, card: ModelCard, settings: ApiSettings, *, asynchronous: bool = False
) -> list[ImageTask]:
    """The tasks of a new job: one per image, or one for a diverse set.

    An `asynchronous` job, for which no caller waits, has a week unless the request has a timeout.
    Raises InvalidFieldsError with every field beyond the settings' or the model's limits.
    """
    height, width = asked_size(request, card)
    select = _diverse_set(request)
    seeds = request.seeds or _consecutive_seeds(request, select.candidates if select else request.num_images)
    if errors := list(_errors(request, select, seeds, card, settings, asynchronous)):
        raise InvalidFieldsError(errors)
    job_id, created = uuid.uuid4().hex, time.time()
    timeout_s = request.timeout or (LONGEST_WAIT_S if asynchronous else settings.timeout_s)
    return [
        ImageTask(
            job_id=job_id,
            index=index,
            prompt=request.prompt,
            seed=seed,
            width=width,
            height=height,
            format=request.format,
            quality=request.quality,
            mode=request.mode,
            created=created,
            traceparent=current_traceparent(),
            deadline=created + timeout_s,
            select=select,
            negative_prompt=own_negative_prompt(request, card),
            guidance_scale=own_guidance_scale(request, card),
        )
        for index, seed in enumerate(seeds[:1] if select else seeds)
    ]


def _diverse_set(request: GenerateRequest) -> DiverseSet | None:
    if request.select is None:
        return None
    default = min(CANDIDATES_PER_IMAGE * request.num_images, MAX_CANDIDATES)
    return DiverseSet(images=request.num_images, candidates=request.select.candidates or default)


def _consecutive_seeds(request: GenerateRequest, count: int) -> list[int]:
    first = secrets.randbelow(RANDOM_SEEDS) if request.seed is None else request.seed
    return [first + i for i in range(count)]


def asked_size(request: GenerateRequest, card: ModelCard) -> tuple[int, int]:
    """Height and width in pixels that the request asks for."""
    native_height, native_width = card.sizes[0]
    return request.height or native_height, request.width or native_width


def _errors(
    request: GenerateRequest,
    select: DiverseSet | None,
    seeds: list[int],
    card: ModelCard,
    settings: ApiSettings,
    asynchronous: bool,
) -> Iterator[FieldError]:
    """One error for each field beyond the settings' or the model's limits."""
    if (request.num_images if request.seeds is None else len(request.seeds)) > settings.max_images:
        yield _beyond("num_images" if request.seeds is None else "seeds", "images", settings.max_images)
    if len(request.prompt) > settings.max_prompt_chars:
        yield _beyond("prompt", "characters", settings.max_prompt_chars)
    longest = max(LONGEST_TIMEOUT_S, settings.result_ttl_s) if asynchronous else LONGEST_TIMEOUT_S
    if request.timeout is not None and request.timeout > longest:
        yield _beyond("timeout", "seconds", longest)
    yield from _size_errors(request, card)
    yield from sampling_errors(request, card)
    for field in ("strength", "mask") if request.image is None else ():
        if getattr(request, field) is not None:
            yield FieldError(field=field, message="belongs to an image, and there is none")
    if select and select.candidates < (least := request.num_images):
        yield FieldError(field="select.candidates", message=f"at least {least}, the num_images", limit=least)
    if seeds[-1] > MAX_SEED:
        most, rows = MAX_SEED - len(seeds) + 1, f"{len(seeds)} {'candidates' if select else 'images'}"
        yield FieldError(field="seed", message=f"at most {most} for {rows}", limit=most)


def _beyond(field: str, unit: str, limit: float) -> FieldError:
    return FieldError(field=field, message=f"at most {limit:g} {unit}", limit=limit)


def _size_errors(request: GenerateRequest, card: ModelCard) -> list[FieldError]:
    height, width = asked_size(request, card)
    if (height, width) in card.sizes:
        return []
    allowed = [f"{sides[1]}x{sides[0]}" for sides in card.sizes]
    message = f"{card.name} makes width x height of {', '.join(allowed)}, not {width}x{height}"
    asked = [field for field in ("width", "height") if getattr(request, field) is not None]
    return [FieldError(field=field, message=message, limit=allowed) for field in asked]
