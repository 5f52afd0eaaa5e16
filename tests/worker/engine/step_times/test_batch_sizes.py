"""Times of batch sizes with made-up clocks: stalls spoil nothing, what is served is kept current."""

from collections import Counter
from collections.abc import Callable

import pytest

from worker.engine.step_times.batch_sizes import (
    GAIN,
    MORE_ROUNDS,
    ROUNDS,
    doubtful,
    expected_gain,
    gain,
    kept_current,
    measured,
)
from worker.engine.step_times.timetable import Timetable

SIZES = (1, 2, 4, 8)
SIZE = (64, 64)


def _affine(rows: int) -> float:
    return 0.016 + 0.002 * rows


def _stalling(stalls: dict[int, int], factor: float) -> tuple[Callable[[int], float], Counter[int]]:
    """A clock on which the first so many measurements of a size take `factor` times as long; and its counts."""
    times = Counter[int]()

    def seconds_of(rows: int) -> float:
        times[rows] += 1
        return _affine(rows) * (factor if times[rows] <= stalls.get(rows, 0) else 1)

    return seconds_of, times


def test_sizes_are_measured_in_turn() -> None:
    order: list[int] = []

    def seconds_of(rows: int) -> float:
        order.append(rows)
        return _affine(rows)

    assert measured(seconds_of, SIZES) == {rows: _affine(rows) for rows in SIZES}
    assert order == list(SIZES) * ROUNDS


@pytest.mark.parametrize("stalls", [{8: ROUNDS}, {1: ROUNDS}, {2: ROUNDS, 8: ROUNDS + 2}, {4: ROUNDS, 8: ROUNDS}])
def test_a_size_that_stalled_each_time_is_measured_again(stalls: dict[int, int]) -> None:
    seconds_of, times = _stalling(stalls, 9)
    assert measured(seconds_of, SIZES) == {rows: _affine(rows) for rows in SIZES}
    assert all(times[rows] > ROUNDS for rows in stalls)


def test_a_size_that_is_as_slow_as_it_seems_is_not_measured_for_ever() -> None:
    times = Counter[int]()

    def seconds_of(rows: int) -> float:
        times[rows] += 1
        return rows**2 * 0.001

    measured(seconds_of, SIZES)
    assert set(times.values()) == {ROUNDS, ROUNDS + MORE_ROUNDS}


def test_doubtful_is_what_a_larger_batch_beats_and_what_rises_steeper_than_its_rows() -> None:
    assert doubtful({rows: _affine(rows) for rows in SIZES}) == set()
    assert doubtful({1: 0.010, 2: 0.020, 4: 0.040, 8: 0.080}) == set()
    assert doubtful({1: 0.018, 2: 0.020, 4: 0.024, 8: 0.288}) == {8}
    assert doubtful({1: 0.100, 2: 0.020, 4: 0.024, 8: 0.032}) == {1}


def test_the_gain_is_in_images_a_second_and_is_foreseen_from_the_slope() -> None:
    affine = {rows: _affine(rows) for rows in (1, 2, 4, 8, 12)}
    assert gain(affine, 8, 12) == pytest.approx(12 / 0.040 * 0.032 / 8 - 1)
    assert expected_gain({rows: affine[rows] for rows in SIZES}, 12) == pytest.approx(gain(affine, 8, 12))
    assert expected_gain({rows: 0.010 * rows for rows in SIZES}, 12) < GAIN
    assert expected_gain({1: 0.01}, 2) == float("inf")


def test_a_time_follows_what_is_served_and_a_stall_hardly_moves_it() -> None:
    assert kept_current(0.03, 3.0) == pytest.approx(0.033)
    seconds = 0.27
    for _ in range(100):
        seconds = kept_current(seconds, 0.03)
    assert seconds == pytest.approx(0.03, rel=0.05)


@pytest.mark.step_times
def test_the_timetable_keeps_served_sizes_current_with_their_decoding() -> None:
    table = Timetable([SIZE], 8)
    table.set_decoding(SIZE, 4, 0.004)
    table.set(SIZE, {1: 0.018, 4: 0.024, 8: 0.032}, interpolated=True)
    for _ in range(100):
        table.served(SIZE, 3, 0.016)
        table.served(SIZE, 8, 9.0)  # nothing is known about its decoding
    assert table.step_times[SIZE][3] == pytest.approx(0.020, rel=0.01)
    assert table.step_times[SIZE][8] == 0.032
    assert table.measured(SIZE).keys() == {1, 2, 3, 4, 6, 8}


def test_the_timetable_forgets_what_does_not_fit_but_never_all() -> None:
    table = Timetable([SIZE], 8)
    assert table.forget(SIZE, 6)
    assert table.largest(SIZE) == 4
    assert not table.forget(SIZE, 6)
    assert not table.forget(SIZE, 1)
    assert table.largest(SIZE) == 4
