"""Tasks for the engine, and running it until it is idle."""

import random
import time
from collections.abc import Iterable
from typing import Any

from jobs.models import DiverseSet, ImageTask
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure, Picture

PROMPTS = ["a red cat", "sad big dog", "sun", "heart", "small blue face", ""]


def image_task(prompt: str = "a red cat", seed: int = 0, **changes: Any) -> ImageTask:
    fields = {"job_id": "job", "index": 0, "width": 64, "height": 64, "created": time.time()}
    return ImageTask.model_validate(fields | {"prompt": prompt, "seed": seed} | changes)


def set_task(images: int, candidates: int, **changes: object) -> ImageTask:
    return image_task(**changes, select=DiverseSet(images=images, candidates=candidates))  # type: ignore[arg-type]


def random_task(dice: random.Random) -> ImageTask:
    return image_task(
        dice.choice(PROMPTS),
        dice.randrange(1000),
        height=dice.choice([64, 64, 32]),
        mode=dice.choice(["fast", "strict"]),
        created=dice.random(),
        deadline=dice.choice([None, 4e9]),
    )


def run(engine: Engine, tasks: Iterable[ImageTask]) -> dict[str, Picture | Failure]:
    """Outcomes of all tasks, joined at once; keys are their positions."""
    engine.add({str(position): task for position, task in enumerate(tasks)})
    outcomes: dict[str, Picture | Failure] = {}
    while engine.busy:
        outcomes |= {outcome.key: outcome for outcome in engine.step()}
    return outcomes


def pictures(engine: Engine, tasks: Iterable[ImageTask]) -> list[Picture]:
    """Like `run`, when none may fail."""
    outcomes = run(engine, tasks)
    made = [outcomes[str(position)] for position in range(len(outcomes))]
    failures = [outcome for outcome in made if isinstance(outcome, Failure)]
    assert not failures, failures
    return [outcome for outcome in made if isinstance(outcome, Picture)]
