"""Choose the rows of the next step: a pure function of the rows that wait and of the seconds that steps take.

docs/batching.md gives the reasons, docs/batching-results.md the results of a simulation.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

Size = tuple[int, int]
StepTimes = Mapping[Size, Mapping[int, float]]
"""Seconds of a step by image size and batch size; only these batch sizes are used."""

PATIENCE_S = 60.0
"""A row ranks as if its deadline were at most this long after its creation, so that nothing starves it."""

BACKLOG = 2
"""With more rows of a size here than this many of the most efficient batches, images a second alone count."""


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

    They are the powers of two and three times these below `max_batch`, and `max_batch` itself."""
    finer = {factor << exponent for exponent in range(max_batch.bit_length()) for factor in (1, 3)}
    return (*sorted(size for size in finer if size < max_batch), max_batch)


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
    chosen = fast[: batch_size([row.job for row in fast], times, backlogged)]
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


def most_efficient(times: Mapping[int, float]) -> int:
    """Return the batch size that makes the most images a second, of several the smallest."""
    return min(times, key=lambda size: (times[size] / size, size))


def batch_size(jobs: Sequence[str], times: Mapping[int, float], backlogged: bool = False) -> int:
    """Return how many rows of a lane, given by their `jobs` in order of urgency, run together.

    It is the number that gains the most a second, up to the most efficient batch. A row's gain is one image and, but
    in a backlog, its part of a call: 1 / (images left of its job). So a call for one image weighs as much as two
    images of a large one.
    """
    best, sizes, images_left = most_efficient(times), sorted(times), Counter(jobs)
    only_images = backlogged or len(jobs) > BACKLOG * best
    gains = accumulate(1.0 if only_images else 1 + 1 / images_left[job] for job in jobs[:best])
    per_second = [gain / times[sizes[bisect_left(sizes, rows)]] for rows, gain in enumerate(gains, start=1)]
    return max(range(1, len(per_second) + 1), key=lambda rows: (per_second[rows - 1], rows))
