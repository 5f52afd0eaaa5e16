"""The rates of an API key, in the headers of draft-ietf-httpapi-ratelimit-headers."""

import math
from collections.abc import Sequence

from jobs.models import ImageTask, ModelCard
from jobs.noise_levels import entry_step, levels_at
from jobs.queue.admission import Admission, RateLimit
from jobs.settings import ApiSettings
from service.problems import FieldError, InvalidFieldsError, Problem


def rate_of(
    client: str, tasks: Sequence[ImageTask], card: ModelCard, settings: ApiSettings, images_field: str
) -> RateLimit | None:
    """The cost of a call of `client`, and what a minute allows; None without limits.

    Raises InvalidFieldsError for a call that costs more than a minute allows. `images_field` is where it says how many
    images are made.
    """
    costs = {"images": sum(len(task.indices) for task in tasks), "evaluations": _evaluations(tasks, card)}
    limits = {"images": settings.rate_limit, "evaluations": settings.evaluation_rate_limit}
    per_minute = {unit: (costs[unit], most) for unit, most in limits.items() if most is not None}
    for unit, (cost, most) in per_minute.items():
        if cost > most:
            field = "select.candidates" if tasks[0].select and unit == "evaluations" else images_field
            message = f"costs {cost} {unit}, and this key has {most} a minute"
            raise InvalidFieldsError([FieldError(field=field, message=message, limit=most)])
    return RateLimit(client, per_minute) if per_minute else None


def over_the_rate(admission: Admission, limit: RateLimit) -> Problem:
    """429 problem, with the time after which the call would fit."""
    unit, wait_s = admission.over, max(1, math.ceil(admission.wait_s))
    most = limit.per_minute[unit][1]
    headers = {
        "Retry-After": str(wait_s),
        "RateLimit-Policy": f'"{unit}";q={most};w=60',
        "RateLimit": f'"{unit}";r={admission.remaining};t={wait_s}',
    }
    detail = f"This key may have {most} {unit} a minute; this call fits in {wait_s} s."
    return Problem(429, "rate-limited", "Over the rate", detail, headers=headers, limit=unit)


def _evaluations(tasks: Sequence[ImageTask], card: ModelCard) -> int:
    """Count the runs of the network: for each image its steps, for a set's other candidates the first of them."""
    a_step = card.evaluations // card.steps
    return a_step * sum(_steps(task, card) for task in tasks)


def _steps(task: ImageTask, card: ModelCard) -> int:
    levels = levels_at(card, (task.height, task.width))
    each = card.steps - (entry_step(levels, task.source.strength) if task.source else 0)
    others = task.select.candidates - task.select.images if task.select else 0
    return len(task.indices) * each + others * min(1, each)
