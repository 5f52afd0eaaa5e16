"""Which rows run in the next step: a pure function of what waits."""

from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE_S = 60.0
"""A row without a deadline ranks as if it had one this long after its creation, so that nothing starves it."""


@dataclass(frozen=True)
class Candidate:
    """A row that could run one step: `size` is (height, width) in pixels, times are Unix seconds."""

    key: str
    size: tuple[int, int]
    created: float
    deadline: float | None


def buckets(max_batch: int) -> tuple[int, ...]:
    """The batch sizes that steps are padded to: powers of two below `max_batch`, and `max_batch` itself."""
    powers = [1 << exponent for exponent in range(max_batch.bit_length()) if 1 << exponent < max_batch]
    return (*powers, max_batch)


def bucket_for(rows: int, strict: bool, max_batch: int) -> int:
    """The smallest bucket that holds `rows`, or for strict ones always the largest.

    At one batch size neither a row's slot nor its neighbours change a bit of it; across sizes they do.
    """
    return max_batch if strict else next(size for size in buckets(max_batch) if size >= rows)


def plan(candidates: Sequence[Candidate], max_batch: int) -> list[str]:
    """Keys of the next batch: the most urgent row picks the size, then the most urgent rows of that size fill it.

    Never waits for company: empty only when there is nothing to run. Urgent is the earliest deadline, then the
    earliest creation.
    """
    order = sorted(candidates, key=_urgency)
    return [candidate.key for candidate in order if candidate.size == order[0].size][:max_batch]


def _urgency(candidate: Candidate) -> tuple[float, float, str]:
    deadline = candidate.created + PATIENCE_S if candidate.deadline is None else candidate.deadline
    return deadline, candidate.created, candidate.key
