"""Find the largest batch that is worth its memory beside the serving engine, and measure doubtful times again."""

import logging
import threading
from collections.abc import Callable

from jobs.structured_logging import progress
from worker.device.accelerator import is_out_of_memory
from worker.engine.engine import Engine
from worker.engine.scheduler import Size, buckets
from worker.engine.step_times.batch_sizes import GAIN, LARGEST, doubtful, expected_gain, gain, measured
from worker.engine_process.compile_thread import capture_anew, is_batch_invariant
from worker.engine_process.device_thread import DeviceThread
from worker.errors import DeviceLostError

log = logging.getLogger(__name__)

RECHECK_S = 30.0
"""Seconds between two looks at the times that the scheduler goes by."""


class BatchSizeThread(threading.Thread):
    """Lets an `engine` that serves on `device` grow its batches up to `largest` rows, one measurement between two
    steps, and calls `chosen` with the reason for the size it ends with. Then it measures doubtful times again for ever.
    It begins when the thread `after` has ended.
    """

    def __init__(
        self,
        device: DeviceThread,
        engine: Engine,
        chosen: Callable[[str], None],
        largest: int = LARGEST,
        after: threading.Thread | None = None,
    ) -> None:
        super().__init__(name="batch-sizes", daemon=True)
        self._device, self._engine, self._chosen, self._largest = device, engine, chosen, largest
        self._after = after
        self._stopping = threading.Event()

    def run(self) -> None:
        if self._after is not None:
            self._after.join()
        try:
            reasons = [self._grow(size) for size in self._engine.step_times]
            self._chosen(reasons[0])
            while not self._stopping.wait(RECHECK_S):
                self.measure_doubtful()
        except DeviceLostError:
            pass  # as the end of the device thread says
        except Exception:
            log.exception("batch sizes are measured no more: serving on with those at hand")

    def stop(self) -> None:
        """End the thread after its next measurement."""
        self._stopping.set()

    def measure_doubtful(self) -> None:
        """Measure again what seems slower than it is: what is never run is never kept current."""
        for size in self._engine.step_times:
            times = self._times(size)
            again = doubtful(times)
            if again:
                fresh = measured(self._seconds_of(size), again)
                self._device.call(self._engine.rehearsal.set_times, size, times | fresh).result()

    def _grow(self, size: Size) -> str:
        """Add larger batches for as long as they gain; returns why it ended."""
        while True:
            times = self._times(size)
            last = max(times)
            larger = next((rows for rows in buckets(self._largest) if rows > last), None)
            if larger is None:
                return f"{last} rows are the most"
            expected = expected_gain(times, larger)
            if expected < GAIN:
                return _too_little(larger, last, expected, "would make")
            before = self._device.call(lambda: self._engine.runner.decoding.at_once).result()
            with progress(f"trying {size[1]}×{size[0]} in batches of {larger}, at most {self._largest}"):
                fresh = self._tried(size, last, larger)
            if isinstance(fresh, str):
                capture_anew(self._device, self._engine, before)
                return fresh
            self._device.call(self._engine.rehearsal.set_times, size, times | fresh).result()

    def _tried(self, size: Size, last: int, larger: int) -> dict[int, float] | str:
        """Return the times of batches of `last` and `larger` rows, or the reason why these are not worth it."""
        try:
            self._device.call(self._engine.rehearsal.attempt, size, larger).result()
            fresh = measured(self._seconds_of(size), [last, larger])
            kept = self._keeps_bits(size, larger)
        except DeviceLostError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                return f"{larger} rows do not fit into memory"
            log.exception("a batch of %d failed: the largest stays %d", larger, last)
            return f"{larger} rows failed: {type(error).__name__}"
        if gain(fresh, last, larger) < GAIN:
            return _too_little(larger, last, gain(fresh, last, larger), "make")
        return fresh if kept else f"in a batch of {larger} rows the bits of a row are others"

    def _keeps_bits(self, size: Size, rows: int) -> bool:
        """Return whether strict rows, if any batch may hold them, keep their bits in one of so many rows."""
        executor = self._engine.runner.executor
        if not executor.batch_invariant:
            return True
        (example, *_) = self._device.call(self._engine.rehearsal.examples_of, size, rows).result()
        return self._device.call(is_batch_invariant, executor, example).result()

    def _times(self, size: Size) -> dict[int, float]:
        return self._device.call(self._engine.timetable.measured, size).result()

    def _seconds_of(self, size: Size) -> Callable[[int], float]:
        return lambda rows: self._device.call(self._engine.rehearsal.time, size, rows).result()


def _too_little(larger: int, last: int, share: float, verb: str) -> str:
    return f"{larger} rows {verb} {share:+.1%} images a second over {last}, less than {GAIN:.0%}"
