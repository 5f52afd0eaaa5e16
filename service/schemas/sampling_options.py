"""Sampling parameters under their usual names; a model takes those values that it is sampled with."""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, Field

from jobs.models import ModelCard
from service.problems import FieldError

STEPS = ("steps", "num_inference_steps")
GUIDANCE_SCALE = ("guidance_scale", "cfg_scale")
SAME = "the same as {}"


class SamplingOptions(BaseModel):
    """Fields that clients of other servers send, on the bodies of ``/generate`` and ``/v1/images/generations``."""

    steps: int | None = Field(default=None, description="denoising steps; only the model's own number")
    num_inference_steps: int | None = Field(default=None, description=SAME.format("steps"))
    guidance_scale: float | None = Field(
        default=None, description="only the model's own; 0 and 1 both stand for a model without guidance"
    )
    cfg_scale: float | None = Field(default=None, description=SAME.format("guidance_scale"))
    negative_prompt: str | None = Field(default=None, max_length=2000, description="only an empty one")


def sampling_errors(options: SamplingOptions, card: ModelCard) -> Iterator[FieldError]:
    """Yield an error for each option that differs from the model's own value, with that value as the limit."""
    yield from _differing(options, STEPS, [card.steps], f"{card.name} takes {card.steps} steps")
    scale = card.own_guidance_scale
    if scale is None:
        takes = f"{card.name} does not say its guidance scale; leave it out"
        yield from _differing(options, GUIDANCE_SCALE, [], takes)
    elif scale > 1:
        yield from _differing(options, GUIDANCE_SCALE, [scale], f"{card.name} takes {scale:g}")
    else:
        takes = f"{card.name} takes 1 or 0, being sampled without guidance"
        yield from _differing(options, GUIDANCE_SCALE, [1, 0], takes)
    if options.negative_prompt and options.negative_prompt.strip():
        message = f"{card.name} takes no negative prompt, only an empty one"
        yield FieldError(field="negative_prompt", message=message, limit="")


def _differing(
    options: SamplingOptions, fields: Sequence[str], allowed: Sequence[float], takes: str
) -> Iterator[FieldError]:
    for field in fields:
        value = getattr(options, field)
        if value is not None and value not in allowed:
            yield FieldError(field=field, message=f"{takes}, not {value}", limit=allowed[0] if allowed else None)
