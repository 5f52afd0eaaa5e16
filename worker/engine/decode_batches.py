"""The number of rows that are decoded at once, apart from how many share a step."""

import logging

from worker.engine.scheduler import Size, buckets

log = logging.getLogger(__name__)


class DecodeBatches:
    """The most rows of each size that are decoded at once: as many as share a step, until these ran out of memory.

    At 1024² the decoder takes nine times the memory of a step: where it does not fit, the batch of a step need not be
    smaller. Strict rows, whose bits depend on the number, keep what was found by the end of the warm-up.
    """

    def __init__(self) -> None:
        self._most: dict[Size, int] = {}
        self._strict: dict[Size, int] = {}

    def most(self, size: Size, rows: int, strict: bool = False) -> int:
        """Return how many of `rows` rows are decoded at once."""
        return min(rows, (self._strict if strict else self._most).get(size, rows))

    def halve(self, size: Size, tried: int) -> None:
        """Decode at most half as many as `tried` rows from now on, in a bucket: `tried` ran out of memory."""
        half = max(rows for rows in buckets(tried) if rows <= max(1, tried // 2))
        self._most[size] = self.most(size, half)
        log.warning("out of memory: images of %s are now decoded %d at once", size, self._most[size])

    @property
    def at_once(self) -> dict[Size, int]:
        """The most rows, of the sizes that are not decoded whole."""
        return dict(self._most)

    @at_once.setter
    def at_once(self, most: dict[Size, int]) -> None:
        self._most = dict(most)

    def keep_for_strict(self) -> None:
        """Decode as many strict rows at once, from now on, as fit so far."""
        self._strict = dict(self._most)
