"""Rules that choose the rows of every step: the worker's own, and others that were tried beside it."""

from collections.abc import Callable, Mapping, Sequence

from bench.scheduling.simulation import Batch, Device, Held, Policy
from worker.engine.scheduler import Candidate, StepTimes, by_urgency, most_efficient, schedule

Rule = Callable[[Sequence[Candidate], StepTimes, bool], list[str]]


def step_level(device: Device, rule: Rule = schedule) -> Policy:
    """One step of the batch that `rule` picks."""

    def choose(held: Held, now: float, backlogged: bool) -> Batch:
        rows = [image.row for image in held.values()]
        return Batch([held[key] for key in rule(rows, device.step_times, backlogged)], 1)

    return choose


def greedy(candidates: Sequence[Candidate], step_times: StepTimes, backlogged: bool) -> list[str]:
    """First come, first served: as many as the largest batch holds, as other servers do that batch every step."""
    rows = [row for row in candidates if row.size == candidates[0].size]
    return [row.key for row in rows[: max(step_times[rows[0].size])]]


def most_urgent(candidates: Sequence[Candidate], step_times: StepTimes, backlogged: bool) -> list[str]:
    """As many of the most urgent as make the most images a second when any number waits ("s0")."""
    return [row.key for row in _lane(candidates, step_times)]


def most_images(candidates: Sequence[Candidate], step_times: StepTimes, backlogged: bool) -> list[str]:
    """As many of the most urgent rows as make the most images a second of those that wait ("s0e")."""
    lane = _lane(candidates, step_times)
    times = step_times[lane[0].size]
    rows = max(range(1, len(lane) + 1), key=lambda rows: (rows / _time(times, rows), rows))
    return [row.key for row in lane[:rows]]


def least_waiting(candidates: Sequence[Candidate], step_times: StepTimes, backlogged: bool) -> list[str]:
    """Cut the order of urgency into batches so that all calls, and as many still to come, wait the least in total.

    A dynamic programme over up to 64 rows; throughput alone counts with more calls than the largest batch holds.
    """
    order = by_urgency(candidates, step_times)
    lane = [row for row in order if row.size == order[0].size][:64]
    jobs, times = [row.job for row in lane], step_times[lane[0].size]
    last_row = {job: index for index, job in enumerate(jobs)}
    if backlogged or len(last_row) > max(times):
        best = min(times, key=lambda size: (times[size] / min(size, len(jobs)), size))
        return [row.key for row in lane[:best]]
    waiting, rows = len(last_row) - 1, 1
    least = [0.0] * (len(jobs) + 1)
    for start in reversed(range(len(jobs))):
        waiting += last_row[jobs[start]] == start
        left = len(jobs) - start
        goes_on = start > 0 and jobs[start] == jobs[start - 1]
        costs = {}
        for size in sorted(times):
            # What is left of a job that has begun shares its batches, so the last one costs only its part.
            part = left / size if goes_on and size > left else 1.0
            costs[size] = waiting * times[size] * part + least[min(start + size, len(jobs))]
            if size >= left and not goes_on:
                break
        rows = min(costs, key=lambda size: (costs[size], size))
        least[start] = costs[rows]
    return [row.key for row in lane[:rows]]


def _lane(candidates: Sequence[Candidate], step_times: StepTimes) -> list[Candidate]:
    order = by_urgency(candidates, step_times)
    size = order[0].size
    return [row for row in order if row.size == size][: most_efficient(step_times[size])]


def _time(times: Mapping[int, float], rows: int) -> float:
    return times[min(size for size in times if size >= rows)]
