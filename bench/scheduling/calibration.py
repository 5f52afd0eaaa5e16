"""Measure separately a step, the end of an image and its way to the client: the costs that the simulation goes by.

Nothing here comes from the runs that the simulation is compared with.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench.scheduling.simulation import Device
from bench.service import http_load
from jobs.models import ImageTask
from worker.engine.engine import Engine
from worker.engine.scheduler import Candidate, StepTimes, buckets, schedule
from worker.model_folder.loading import LoadedModel


@dataclass(frozen=True)
class Costs:
    """Seconds by batch size: `step` of a whole step, `finish` of what the step that ends images takes longer.

    `outside` is the rest of a lone image's latency: HTTP, Redis, its file.
    """

    step: dict[int, float]
    finish: dict[int, float]
    outside: float = 0.0

    def device(self, steps: int) -> Device:
        """Nothing is padded: between the batch sizes costs are interpolated."""
        step, finish = (partial(np.interp, xp=list(of), fp=list(of.values())) for of in (self.step, self.finish))
        return Device(step, finish, steps, max(self.step), pads=False)

    @classmethod
    def read(cls, figures: dict[str, Any]) -> "Costs":
        """From `written`, also when its keys have become strings in JSON."""
        step, finish = ({int(rows): seconds for rows, seconds in figures[name].items()} for name in ("step", "finish"))
        return cls(step, finish, figures["outside"])

    def written(self) -> dict[str, Any]:
        step, finish = ({rows: round(s, 6) for rows, s in of.items()} for of in (self.step, self.finish))
        return {"step": step, "finish": finish, "outside": round(self.outside, 6)}


def engine_costs(
    model: LoadedModel, max_batch: int, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> Costs:
    """Medians over batches that run alone from the first step to the last, scheduling included, by `clock`."""
    engine = Engine(model, max_batch, policy=_all_together)
    engine.warm_up()
    step, finish = {}, {}
    for rows in buckets(max_batch):
        courses = [_course(engine, rows, f"{rows} {repeat}", clock) for repeat in range(repeats)]
        # The first step also draws the noise and looks the prompt up; of these there is one for each image.
        step[rows] = statistics.median(seconds for course in courses for seconds in course[1:-1])
        finish[rows] = statistics.median(course[0] + course[-1] for course in courses) - 2 * step[rows]
    return Costs(step, finish)


def outside(port: int, request: bytes, costs: Costs, steps: int, images: int) -> float:
    """Median latency of `images` that are alone one after the other, without what the engine takes for each."""
    answers = asyncio.run(http_load.closed_loop(port, 1, images, lambda: request))
    return answers.quantile(0.5) - steps * costs.step[1] - costs.finish[1]


def _course(engine: Engine, rows: int, job: str, clock: Callable[[], float]) -> list[float]:
    """Seconds of each step of one batch."""
    height, width = engine.model.contract.sizes[0]
    about = {"job_id": job, "prompt": "a cat", "height": height, "width": width, "created": time.time()}
    engine.add({f"{job} {index}": ImageTask(index=index, seed=index, **about) for index in range(rows)})
    seconds = []
    while engine.busy:
        began = clock()
        engine.step()
        seconds.append(clock() - began)
    return seconds


def _all_together(candidates: Sequence[Candidate], times: StepTimes, backlogged: bool) -> list[str]:
    schedule(candidates, times, backlogged)
    return [candidate.key for candidate in candidates]
