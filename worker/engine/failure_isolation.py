"""Work on rows together, and where that raises on each half: only rows that fail alone fail."""

import logging
from collections.abc import Callable

import torch

from worker.device import accelerator
from worker.engine.row import Row

log = logging.getLogger(__name__)

Work = Callable[[list[Row]], None]


class FailureIsolation:
    """Isolates what fails on `device`, and calls `fail` with each row that fails alone, and the reason.

    While `shares_memory` says that another thread runs networks there, what runs out of memory is tried again.
    """

    def __init__(self, device: torch.device, fail: Callable[[Row, str], None]) -> None:
        self.shares_memory = False
        self._device, self._fail = device, fail

    def run(self, rows: list[Row], work: Work, out_of_memory: Work) -> list[Row]:
        """Do `work` on `rows`; returns those that it was done on. `out_of_memory` is told of the rows that memory did
        not hold. Raises DeviceLostError when the device has failed."""
        if not rows:
            return []
        error = self._attempt(rows, work)
        if error is None:
            return rows
        if self._passes(error):
            accelerator.free_memory(self._device)
        elif accelerator.is_out_of_memory(error):
            out_of_memory(rows)
        if len(rows) > 1:
            log.warning("a batch of %d failed (%s): trying its halves", len(rows), type(error).__name__)
            half = len(rows) // 2
            return [row for part in (rows[:half], rows[half:]) for row in self.run(part, work, out_of_memory)]
        if not self._passes(error):  # else the row stays as it was, for the next step
            self._fail(rows[0], f"{type(error).__name__}: {error}")
        return []

    def raise_if_lost(self, error: Exception) -> None:
        """Raise DeviceLostError where `error` is of a device that will fail whatever is asked of it."""
        if lost := accelerator.lost(error, self._device):
            raise lost from error

    def _attempt(self, rows: list[Row], work: Work) -> Exception | None:
        try:
            work(rows)
        except Exception as error:
            self.raise_if_lost(error)
            if len(rows) == 1 and not self._passes(error):
                log.exception("image %s failed", rows[0].key, extra={"job_id": rows[0].task.job_id})
            # The frames of a traceback keep the batch's tensors, and so the memory that its halves need.
            return error.with_traceback(None)
        return None

    def _passes(self, error: Exception) -> bool:
        """Return whether `error` is of the moment alone."""
        return self.shares_memory and accelerator.is_out_of_memory(error)
