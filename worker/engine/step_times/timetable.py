"""The seconds that steps take, by image size and batch size, as the scheduler goes by them."""

from collections.abc import Mapping, Sequence

from worker.engine.scheduler import Size, buckets, every_size
from worker.engine.step_times.batch_sizes import kept_current


class Timetable:
    """`step_times` of each image size up to its largest batch. A step's time includes its share of the decoding."""

    def __init__(self, sizes: Sequence[Size], max_batch: int) -> None:
        # All equal until they are measured: whoever waits then joins at once.
        self.step_times: dict[Size, dict[int, float]] = {
            size: dict.fromkeys(buckets(max_batch), 1e-3) for size in sizes
        }
        self._decoding: dict[Size, dict[int, float]] = {size: {} for size in sizes}

    def largest(self, size: Size) -> int:
        """Return the number of rows of the largest batch."""
        return max(self.step_times[size])

    def measured(self, size: Size) -> dict[int, float]:
        """Return the times of the sizes that are measured, and that graphs and compiled code are made for."""
        times = self.step_times[size]
        return {rows: times[rows] for rows in buckets(max(times)) if rows in times}

    def set(self, size: Size, times: Mapping[int, float], interpolated: bool) -> None:
        """Go by measured `times`, up to the largest in them; `interpolated` for batches of every size between them."""
        self.step_times[size] = every_size(times) if interpolated else dict(times)

    def forget(self, size: Size, too_large: int) -> bool:
        """Leave out batches of `too_large` rows and more; False where none or all are so large."""
        fitting = {rows: seconds for rows, seconds in self.step_times[size].items() if rows < too_large}
        if not fitting or len(fitting) == len(self.step_times[size]):
            return False
        self.step_times[size] = fitting
        return True

    def set_decoding(self, size: Size, rows: int, seconds: float) -> None:
        """Say what share of a step's time is the decoding that follows."""
        self._decoding[size][rows] = seconds

    def served(self, size: Size, rows: int, seconds: float) -> None:
        """Keep the time of a batch size current after a step of it took `seconds`, without decoding."""
        times, decoding = self.step_times[size], self._decoding[size]
        known = [measured for measured in decoding if measured >= rows]
        if rows in times and known:
            times[rows] = kept_current(times[rows], seconds + decoding[min(known)])
