"""Step-level against request-level batching on one engine, with Poisson arrivals; part of `make bench-engine`.

The same images arrive at both policies at the same moments. Time is the CPU time of the engine's thread: whatever else
the machine does does not blur the latencies, and nobody waits while the engine is idle. On a CPU with one thread only.
"""

import argparse
import random
import time
from collections.abc import Sequence
from itertools import islice
from statistics import mean

import torch
from rich.progress import track

from bench import results_file
from bench.quantiles import quantile
from bench.scheduling.calibration import engine_costs
from bench.scheduling.simulation import SIZE, poisson
from jobs.models import ImageTask
from jobs.settings import BUNDLED_MODEL
from worker.engine.engine import Engine, Policy
from worker.engine.outcomes import Failure
from worker.engine.scheduler import Candidate, StepTimes
from worker.model_folder.loading import load

PROMPTS = ["a red cat", "sad big dog", "sun", "heart", "small blue face", "a smiling sun", "green", "a star"]

BACKLOG = 8
"""Throughput is measured with the images of so many largest batches waiting at once: sustained over the first half of
them, while others still wait, and to the last image, where the scheduler takes smaller batches for a lower mean."""


def request_batching(steps: int) -> Policy:
    """Whole images together: what has begun runs to its end, then the oldest fill the next batch."""

    def choose(candidates: Sequence[Candidate], step_times: StepTimes, backlogged: bool) -> list[str]:
        begun = [row for row in candidates if row.steps_left < steps]
        oldest = sorted(candidates, key=lambda row: row.created)[: max(step_times[candidates[0].size])]
        return [row.key for row in begun or oldest]

    return choose


def latencies(engine: Engine, arrivals: Sequence[float]) -> tuple[list[float], float]:
    """Serve one image at each of the times; returns their latencies and the end of the last, in CPU seconds."""
    height, width = engine.model.contract.sizes[0]
    waiting, now, done = list(enumerate(arrivals))[::-1], 0.0, []
    while waiting or engine.busy:
        if not engine.busy:
            now = max(now, waiting[-1][1])
        while waiting and waiting[-1][1] <= now:
            number, created = waiting.pop()
            prompt = PROMPTS[number % len(PROMPTS)]
            task = ImageTask(
                job_id=str(number), index=0, prompt=prompt, seed=number, height=height, width=width, created=created
            )
            engine.add({str(number): task})
        started = time.thread_time()
        outcomes = engine.step()
        now += time.thread_time() - started
        for outcome in outcomes:
            assert not isinstance(outcome, Failure), outcome
            done.append(now - arrivals[int(outcome.key)])
    return done, now


def measure(options: argparse.Namespace) -> dict:
    model = load(options.model, "cpu", "float32")
    engines = {
        "step": Engine(model, options.max_batch),
        "request": Engine(model, options.max_batch, policy=request_batching(model.table.steps)),
    }
    engines["step"].warm_up()
    # The scheduler goes by the clock by which latencies are taken.
    costs = engine_costs(model, options.max_batch, repeats=5, clock=time.thread_time)
    step_times = costs.device(model.table.steps).step_times[SIZE]
    engines["step"].step_times[model.contract.sizes[0]] = step_times
    latencies(engines["request"], [0.0] * options.max_batch)
    sustained: dict[str, list[float]] = {name: [] for name in engines}
    drained: dict[str, list[float]] = {name: [] for name in engines}
    spent: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(options.rounds):
        for name, engine in engines.items():
            images = BACKLOG * options.max_batch
            ends, end = latencies(engine, [0.0] * images)
            backlogged = images // 2
            sustained[name].append(backlogged / sorted(ends)[backlogged - 1])
            drained[name].append(images / end)
    capacity = max(mean(rate) for rate in sustained.values())
    for seed in track(range(options.rounds), "arrivals"):
        arrivals = list(islice(poisson(options.load * capacity, random.Random(seed)), options.images))
        for name, engine in engines.items():
            spent[name] += latencies(engine, arrivals)[0]
    found = {
        name: {f"p{100 * share:.0f}": quantile(values, share) for share in (0.5, 0.9, 0.99)}
        for name, values in spent.items()
    }
    return {
        "load": options.load,
        "images": options.rounds * options.images,
        "max_batch": options.max_batch,
        "sustained_images_per_cpu_s": {name: round(mean(rate), 2) for name, rate in sustained.items()},
        "drained_images_per_cpu_s": {name: round(mean(rate), 2) for name, rate in drained.items()},
        "latency_cpu_s": {name: {q: round(s, 4) for q, s in values.items()} for name, values in found.items()},
        "step_times_cpu_s": {str(rows): round(seconds, 4) for rows, seconds in step_times.items()},
        "step_over_request": {
            **{q: round(found["step"][q] / found["request"][q], 3) for q in found["step"]},
            "throughput": round(mean(sustained["step"]) / mean(sustained["request"]), 3),
            "throughput_to_the_last_image": round(mean(drained["step"]) / mean(drained["request"]), 3),
        },
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default=str(BUNDLED_MODEL))
    options.add_argument("--max-batch", type=int, default=8)
    options.add_argument("--load", type=float, default=0.7)
    options.add_argument("--images", type=int, default=300, help="in each round")
    options.add_argument("--rounds", type=int, default=3)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    figures = measure(options.parse_args())
    results_file.write("engine_arrivals", figures)
    for name, figure in figures.items():
        print(f"{name:28} {figure}")


if __name__ == "__main__":
    main()
