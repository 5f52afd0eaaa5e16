"""Warnings of an answer: what the caller asked for, and did not get."""

import math
from collections.abc import Sequence

from pydantic import BaseModel

from jobs.models import ImageResult, ImageTask, ModelCard, PromptTokens
from jobs.noise_levels import entry_step, levels_at
from jobs.settings import ApiSettings
from service.schemas.generate_request import GenerateRequest, asked_size


class RequestWarning(BaseModel):
    """A field of the request that was not honoured, and what was done instead."""

    field: str
    message: str


def unread_prompt(results: Sequence[ImageResult]) -> list[RequestWarning]:
    """Warnings when the text encoders of the model read only the beginning of the prompts of `results`."""
    counts = {
        "prompt": [result.prompt_tokens for result in results],
        "negative_prompt": [result.negative_prompt_tokens for result in results],
    }
    return [
        RequestWarning(field=field, message=_unread(field, tokens))
        for field, every in counts.items()
        for tokens in [one for one in every if one and one.read < one.total][:1]
    ]


def _unread(field: str, tokens: PromptTokens) -> str:
    rest = "is not in the picture" if field == "prompt" else "keeps nothing out of the picture"
    return f"the model reads {tokens.read} tokens of a prompt, and this one has {tokens.total}: the rest {rest}"


def unchanged_picture(tasks: Sequence[ImageTask], card: ModelCard) -> list[RequestWarning]:
    """A warning when the strength of `tasks` is so small that no step of the model would change their picture."""
    source, levels = tasks[0].source, levels_at(card, (tasks[0].height, tasks[0].width))
    if source is None or source.strength == 0 or entry_step(levels, source.strength) < card.steps:
        return []
    named = ", ".join(f"{level:g}" for level in levels)
    message = f"{source.strength:g} is nearest to no noise among {card.name}'s levels, {named}: the picture comes back"
    return [RequestWarning(field="strength", message=message)]


def with_nearest_size(
    request: GenerateRequest, card: ModelCard, settings: ApiSettings
) -> tuple[GenerateRequest, list[RequestWarning]]:
    """The request at the size of the model that is nearest to its own, where the settings allow that, and warnings.

    Nearest is first the shape (width to height), then the area.
    """
    height, width = asked = asked_size(request, card)
    if settings.size_fallback == "error" or asked in card.sizes:
        return request, []

    def distance(size: tuple[int, int]) -> tuple[float, float]:
        taller, wider = math.log(size[0]) - math.log(height), math.log(size[1]) - math.log(width)
        return abs(wider - taller), abs(wider + taller)

    nearest = min(card.sizes, key=distance)
    message = f"{width}x{height} is made as {nearest[1]}x{nearest[0]}, the nearest size that {card.name} has"
    warnings = [
        RequestWarning(field=field, message=message) for field in ("width", "height") if getattr(request, field)
    ]
    return request.model_copy(update={"height": nearest[0], "width": nearest[1]}), warnings
