"""Which rows run in the next step: a pure function of what waits and of how long steps take.

docs/batching.md tells why it is as it is, and what a simulation of it measured.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]
StepTimes = Mapping[Size, Mapping[int, float]]
"""Seconds that a step takes, by image size and batch size; only these batch sizes are used."""

PATIENCE_S = 60.0
"""A row ranks as if its deadline were at most this long after its creation, so that nothing starves it."""

FEW_JOBS = 1
"""Behind a batch wait not only the jobs that are here but also those to come: as many as are here above `FEW_JOBS`. So
a short queue is served for the least mean latency, and a longer one more and more for throughput."""

BACKLOG = 1
"""When more jobs are here than this many of the largest batches hold, throughput alone counts."""

HORIZON_ROWS = 64
"""How many rows ahead the batch size is thought through."""


@dataclass(frozen=True)
class Candidate:
    """A row that could run one of the `steps_left` steps it still needs.

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
    """The batch sizes that are measured, and that steps from graphs or of compiled code are padded to: powers of two
    below `max_batch`, and `max_batch` itself."""
    powers = [1 << exponent for exponent in range(max_batch.bit_length()) if 1 << exponent < max_batch]
    return (*powers, max_batch)


def every_size(times: Mapping[int, float]) -> dict[int, float]:
    """Measured `times`, with those of all batch sizes between them on straight lines: eager code pads nothing."""
    sizes = range(1, max(times) + 1)
    measured = sorted(times)
    return dict(zip(sizes, np.interp(sizes, measured, [times[size] for size in measured]).tolist(), strict=True))


def bucket_for(rows: int, strict: bool, max_batch: int) -> int:
    """The smallest bucket that holds `rows`, or for strict ones always the largest.

    At one batch size neither a row's slot nor its neighbours change a bit of it; across sizes they do.
    """
    return max_batch if strict else next(size for size in buckets(max_batch) if size >= rows)


def schedule(candidates: Sequence[Candidate], step_times: StepTimes, backlogged: bool = False) -> list[str]:
    """Keys of the next batch: the most urgent row picks the image size, then the most urgent of that size join it.

    Never waits for company: empty only when there is nothing to run. How many join depends on what a larger batch
    costs, and no place is left empty that a row of the same size could have had for nothing. `backlogged` says that
    more wait than are given here.
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
    """Earliest deadline first, where a job's deadline is put off by the time that its remaining images here take.

    So among equal jobs the earliest deadline counts, then the earliest creation; and a small job passes a large one
    unless that waits already for longer than the difference of their work. Within a job, rows that could end up
    alone at its end go first, then those that are nearest to their own end.
    """
    best_batch = {size: most_efficient(times) for size, times in step_times.items()}
    steps_left = Counter[str]()
    seconds_left: defaultdict[str, float] = defaultdict(float)
    for row in candidates:
        rows = best_batch[row.size]
        steps_left[row.job] += row.steps_left
        seconds_left[row.job] += row.steps_left * step_times[row.size][rows] / rows

    def rank(row: Candidate) -> tuple[float, float, str, bool, int, str]:
        patience = row.created + PATIENCE_S
        deadline = patience if row.deadline is None else min(row.deadline, patience)
        trails = row.steps_left * best_batch[row.size] >= steps_left[row.job]
        return deadline + seconds_left[row.job], row.created, row.job, not trails, row.steps_left, row.key

    return sorted(candidates, key=rank)


def most_efficient(times: Mapping[int, float], rows: int | None = None) -> int:
    """The batch size that makes the most images a second when `rows` wait, by default any number; of several the
    smallest."""
    return min(times, key=lambda size: (times[size] / min(size, rows or size), size))


def batch_size(jobs: Sequence[str], times: Mapping[int, float], backlogged: bool = False) -> int:
    """How many rows of a lane, given by their `jobs` in order of urgency, run together.

    Cuts the order into batches so that the jobs here, and those foreseen, wait the least in total: each batch costs
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
