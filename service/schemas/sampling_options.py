"""Sampling parameters under their usual names; a model takes those values that it is sampled with."""

from collections.abc import Iterator, Sequence

from pydantic import ConfigDict, Field

from jobs.models import ModelCard
from service.problems import FieldError
from service.schemas.bounded_fields import BoundedFields

STEPS = ("steps", "num_inference_steps")
GUIDANCE_SCALE = ("guidance_scale", "cfg_scale")
LEAST_GUIDANCE, MOST_GUIDANCE = 1, 30
SAME = "the same as {}"


class SamplingOptions(BoundedFields):
    """Fields that clients of other servers send, on the bodies of ``/generate`` and ``/v1/images/generations``."""

    model_config = ConfigDict(allow_inf_nan=False)  # inherited by the bodies: their values stand in JSON answers

    steps: int | None = Field(default=None, description="denoising steps; only the model's own number")
    num_inference_steps: int | None = Field(default=None, description=SAME.format("steps"))
    guidance_scale: float | None = Field(
        default=None,
        description="of a guided model, 1 to 30; of others only their own, where 0 and 1 both stand for no guidance",
    )
    cfg_scale: float | None = Field(default=None, description=SAME.format("guidance_scale"))
    negative_prompt: str | None = Field(
        default=None,
        max_length=2000,
        description="of a guided model, what it leads away from; of others only an empty one",
    )


def sampling_errors(options: SamplingOptions, card: ModelCard) -> Iterator[FieldError]:
    """Yield an error for each option that the model does not take, with its own value or its bounds as the limit."""
    yield from _differing(options, STEPS, [card.steps], f"{card.name} takes {card.steps} steps")
    scale = card.own_guidance_scale
    if scale is None:
        takes = f"{card.name} does not say its guidance scale; leave it out"
        yield from _differing(options, GUIDANCE_SCALE, [], takes)
    elif is_guided(card):
        yield from _guidance_errors(options, card)
    elif scale > 1:
        yield from _differing(options, GUIDANCE_SCALE, [scale], f"{card.name} takes {scale:g}")
    else:
        takes = f"{card.name} takes 1 or 0, being sampled without guidance"
        yield from _differing(options, GUIDANCE_SCALE, [1, 0], takes)
    if options.negative_prompt and options.negative_prompt.strip() and not is_guided(card):
        message = f"{card.name} takes no negative prompt, only an empty one"
        yield FieldError(field="negative_prompt", message=message, limit="")


def is_guided(card: ModelCard) -> bool:
    """Return whether calls may name a guidance scale and a negative prompt of their own."""
    return card.negative_prompt is not None


def own_guidance_scale(options: SamplingOptions, card: ModelCard) -> float | None:
    """The scale of a call to a guided model; None for the model's own."""
    asked = options.cfg_scale if options.guidance_scale is None else options.guidance_scale
    return asked if is_guided(card) else None


def own_negative_prompt(options: SamplingOptions, card: ModelCard) -> str | None:
    """The negative prompt of a call to a guided model; None for the model's own."""
    asked = (options.negative_prompt or "").strip()
    return asked if asked and is_guided(card) else None


def _guidance_errors(options: SamplingOptions, card: ModelCard) -> Iterator[FieldError]:
    asked = {field: value for field in GUIDANCE_SCALE if (value := getattr(options, field)) is not None}
    for field, value in asked.items():
        if not LEAST_GUIDANCE <= value <= MOST_GUIDANCE:
            message = f"{card.name} takes {LEAST_GUIDANCE} to {MOST_GUIDANCE}, not {value}"
            yield FieldError(field=field, message=message, limit=[LEAST_GUIDANCE, MOST_GUIDANCE])
    if len(set(asked.values())) > 1:
        yield FieldError(field="cfg_scale", message="another than guidance_scale", limit=asked["guidance_scale"])


def _differing(
    options: SamplingOptions, fields: Sequence[str], allowed: Sequence[float], takes: str
) -> Iterator[FieldError]:
    for field in fields:
        value = getattr(options, field)
        if value is not None and value not in allowed:
            yield FieldError(field=field, message=f"{takes}, not {value}", limit=allowed[0] if allowed else None)
