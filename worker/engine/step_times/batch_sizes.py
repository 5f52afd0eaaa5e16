"""The batch sizes that are worth running: seconds of a step by batch size, measured so that a stall spoils nothing."""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

LARGEST = 64
"""The largest batch that `FOURSTEP_MAX_BATCH=auto` tries."""

STRICT = 8
"""Rows of a strict batch, and the largest batch that is measured before the worker serves, under `auto`. One number for
all machines, so that it changes no bits of strict images."""

GAIN = 0.05
"""A batch is worth its memory when it makes so many more images a second than the next smaller one."""

ROUNDS = 3
"""Measurements of each batch size, of which the fastest counts: a stall only ever adds."""

MORE_ROUNDS = 6
"""Further measurements of sizes whose times are doubtful."""

TOLERANCE = 1.1
"""How much a time may be off before it is doubtful."""

WEIGHT = 0.1
"""Share of a served step in the time that is kept for its batch size."""


def measured(seconds_of: Callable[[int], float], sizes: Iterable[int]) -> dict[int, float]:
    """Measure a step of each of the `sizes` by `seconds_of`, all of them in turn, and doubtful ones again."""
    times = {size: seconds_of(size) for size in sizes}
    for _ in range(ROUNDS - 1):
        times = {size: min(seconds, seconds_of(size)) for size, seconds in times.items()}
    for _ in range(MORE_ROUNDS):
        for size in doubtful(times):
            times[size] = min(times[size], seconds_of(size))
    return times


def doubtful(times: Mapping[int, float]) -> set[int]:
    """Return the sizes that seem slower than they are: slower than a larger one, or by the image slower than the next
    smaller one."""
    found = set()
    for small, large in pairwise(sorted(times)):
        if times[small] > TOLERANCE * times[large]:
            found.add(small)
        if times[large] / large > TOLERANCE * times[small] / small:
            found.add(large)
    return found


def gain(times: Mapping[int, float], small: int, large: int) -> float:
    """Return how many more images a second `large` batches make than `small` ones, as a share of these."""
    return large / times[large] * times[small] / small - 1


def expected_gain(times: Mapping[int, float], large: int) -> float:
    """Return the gain of a `large` batch over the largest in `times`, if its time goes on rising as between the largest
    two; infinite for a single time."""
    if len(times) < 2:
        return float("inf")
    before, last = sorted(times)[-2:]
    slope = max(0.0, (times[last] - times[before]) / (last - before))
    return gain({**times, large: times[last] + slope * (large - last)}, last, large)


def kept_current(kept: float, served: float) -> float:
    """Return the time to keep after a step took `served` seconds; a stall counts no more than twice the time `kept`."""
    return kept + WEIGHT * (min(max(served, kept / 2), 2 * kept) - kept)
