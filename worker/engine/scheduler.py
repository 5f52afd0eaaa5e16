"""Choose the rows of the next step: a pure function of the rows that wait and of the seconds that steps take.

docs/batching.md gives the reasons and the results of a simulation.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]
StepTimes = Mapping[Size, Mapping[int, float]]
"""Seconds of a step by image size and batch size; only these batch sizes are used."""

PATIENCE_S = 60.0
"""A row ranks as if its deadline were at most this long after its creation, so that nothing starves it."""

FEW_JOBS = 1
"""The cost of a batch counts the jobs that are here and as many future ones as are here above `FEW_JOBS`. So a short
queue is served for the least mean latency, and a longer one more and more for throughput."""

BACKLOG = 1
"""When more jobs are here than this many of the largest batches hold, throughput alone counts."""

HORIZON_ROWS = 64
"""Number of rows for which the batch size is optimised."""


@dataclass(frozen=True)
class Candidate:
    """A row that can take a step, with `steps_left` to go.

    `size` is (height, width) in pixels, times are Unix seconds; the rows of one call have the same `job`. A `strict`
    row runs in the largest batch only.
    """

    key: str
    job: str
    size: Size
    created: float
    deadline: float | None
    steps_left: int
    strict: bool = False


def buckets(max_batch: int) -> tuple[int, ...]:
    """Return the batch sizes that are measured and that graphs and compiled code are made for.

    They are the powers of two below `max_batch`, and `max_batch` itself."""
    powers = [1 << exponent for exponent in range(max_batch.bit_length()) if 1 << exponent < max_batch]
    return (*powers, max_batch)


def every_size(times: Mapping[int, float]) -> dict[int, float]:
    """Interpolate measured `times` linearly for all batch sizes between them: eager code pads nothing."""
    sizes = range(1, max(times) + 1)
    measured = sorted(times)
    return dict(zip(sizes, np.interp(sizes, measured, [times[size] for size in measured]).tolist(), strict=True))


def bucket_for(rows: int, strict: bool, max_batch: int) -> int:
    """Return the smallest bucket that holds `rows`, or for strict ones always the largest.

    At one batch size neither a row's slot nor its neighbours change a bit of it; across sizes they do.
    """
    return max_batch if strict else next(size for size in buckets(max_batch) if size >= rows)


def schedule(candidates: Sequence[Candidate], step_times: StepTimes, backlogged: bool = False) -> list[str]:
    """Return the keys of the next batch: the most urgent row picks the size, then the most urgent of that size join.

    It never waits for more rows: the batch is empty only when there is nothing to run. How many join depends on the
    cost of a larger batch, and no padding is left where a row of the same size fits. `backlogged` says that more rows
    wait than are given here.
    """
    if not candidates:
        return []
    order = by_urgency(candidates, step_times)
    first, times = order[0], step_times[order[0].size]
    lane = [row for row in order if row.size == first.size]
    strict = [row for row in lane if row.strict]
    fast = [row for row in lane if not row.strict]
    largest = max(times)
    if first.strict:
        # All of them cost the largest batch anyway, and so does whoever fills it.
        return [row.key for row in [*strict, *fast][:largest]]
    chosen = fast[: batch_size([row.job for row in fast[:HORIZON_ROWS]], times, backlogged)]
    if largest == min(size for size in times if size >= len(chosen)):
        chosen += strict[: largest - len(chosen)]
    return [row.key for row in chosen]


def by_urgency(candidates: Sequence[Candidate], step_times: StepTimes) -> list[Candidate]:
    """Sort by deadline, where a job's deadline is put off by the time that its remaining images here take.

    So among equal jobs the earliest deadline counts, then the earliest creation; and a small job passes a large one
    unless the large one has waited for longer than the difference of their work. Within a job, rows that would be left
    over at its end go first, then those with the fewest steps left.
    """
    best_batch = {size: most_efficient(times) for size, times in step_times.items()}
    steps_left = Counter[str]()
    seconds_left: defaultdict[str, float] = defaultdict(float)
    for row in candidates:
        rows = best_batch[row.size]
        steps_left[row.job] += row.steps_left
        seconds_left[row.job] += row.steps_left * step_times[row.size][rows] / rows

    def rank(row: Candidate) -> tuple[float, float, str, bool, int, int, str]:
        patience = row.created + PATIENCE_S
        deadline = patience if row.deadline is None else min(row.deadline, patience)
        trails = row.steps_left * best_batch[row.size] >= steps_left[row.job]
        # The shorter key first: entries of a stream are numbered, and 10 comes after 9.
        of_row = row.steps_left, len(row.key), row.key
        return deadline + seconds_left[row.job], row.created, row.job, not trails, *of_row

    return sorted(candidates, key=rank)


def most_efficient(times: Mapping[int, float], rows: int | None = None) -> int:
    """Return the batch size that makes the most images a second when `rows` wait, by default any number.

    Of several the smallest."""
    return min(times, key=lambda size: (times[size] / min(size, rows or size), size))


def batch_size(jobs: Sequence[str], times: Mapping[int, float], backlogged: bool = False) -> int:
    """Return how many rows of a lane, given by their `jobs` in order of urgency, run together.

    Cuts the order into batches so that the jobs here, and those expected, wait the least in total: each batch costs
    its time for every job that is not done before it. Where a batch of two takes as long as one, two go together;
    where it takes twice as long, one goes after the other. The result is the first of these batches. In a backlog it
    is the batch that makes the most images a second.
    """
    last_row = {job: index for index, job in enumerate(jobs)}
    sizes = sorted(times)
    if backlogged or len(last_row) > BACKLOG * sizes[-1]:
        return min(most_efficient(times, len(jobs)), len(jobs))
    waiting = max(0, len(last_row) - FEW_JOBS)
    least_cost = [0.0] * (len(jobs) + 1)
    rows = 1
    for start in reversed(range(len(jobs))):
        waiting += last_row[jobs[start]] == start
        left = len(jobs) - start
        goes_on = start > 0 and jobs[start] == jobs[start - 1]
        least_cost[start] = float("inf")
        for size in sizes:
            # What is left of a job that has begun shares its batches, so the last one costs only its part.
            part = left / size if goes_on and size > left else 1.0
            cost = waiting * times[size] * part + least_cost[min(start + size, len(jobs))]
            if cost < least_cost[start] - 1e-12:
                least_cost[start], rows = cost, min(size, left)
            if size >= left and not goes_on:
                break
    return rows
