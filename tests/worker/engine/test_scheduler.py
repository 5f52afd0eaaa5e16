"""Properties of the schedule for any set of waiting rows."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.engine.scheduler import PATIENCE_S, Candidate, batch_size, bucket_for, buckets, every_size, schedule

SIZES = [(64, 64), (64, 96), (96, 64)]
STEPS = 4
times = st.integers(0, 200).map(float)
of_any_queue = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def step_times(step: dict[int, float]) -> dict[tuple[int, int], dict[int, float]]:
    return dict.fromkeys(SIZES, step)


LAUNCH_BOUND = dict.fromkeys((1, 2, 4, 8), 1.0)
MIXED = {rows: 1.0 + 0.3 * rows for rows in (1, 2, 4, 8)}
COMPUTE_BOUND = {rows: float(rows) for rows in (1, 2, 4, 8)}


@st.composite
def measured(draw: st.DrawFn) -> dict[tuple[int, int], dict[int, float]]:
    """Step times of any shape, rising or not."""
    sizes = buckets(draw(st.integers(1, 9)))
    return {size: {rows: draw(st.integers(1, 40)) / 4 for rows in sizes} for size in SIZES}


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(0, 14))
    return [
        Candidate(
            key=str(key),
            job=draw(st.sampled_from("abcdef")),
            size=draw(st.sampled_from(SIZES)),
            created=draw(times),
            deadline=draw(st.none() | times),
            steps_left=draw(st.integers(1, STEPS)),
            strict=draw(st.booleans()),
        )
        for key in range(count)
    ]


def row(key: str, job: str | None = None, **changes: object) -> Candidate:
    return replace(Candidate(key, job or key, SIZES[0], 0.0, None, STEPS), **changes)  # type: ignore[arg-type]


@of_any_queue
@given(candidates(), measured())
def test_a_step_is_one_batch_of_one_size_that_fits_its_bucket(rows: list[Candidate], measured: dict) -> None:
    keys = schedule(rows, measured)
    chosen = [row for row in rows if row.key in keys]
    assert len(keys) == len(set(keys)) == len(chosen)
    assert bool(keys) == bool(rows)
    if rows:
        assert len({row.size for row in chosen}) == 1
        assert len(chosen) <= max(measured[chosen[0].size])


@pytest.mark.slow
@of_any_queue
@given(candidates(), measured())
def test_no_place_of_a_batch_is_empty_while_a_row_fits(rows: list[Candidate], measured: dict) -> None:
    keys = schedule(rows, measured)
    chosen = [row for row in rows if row.key in keys]
    if not chosen:
        return
    size, largest = chosen[0].size, max(measured[chosen[0].size])
    bucket = bucket_for(len(keys), any(row.strict for row in chosen), largest)
    left = [row for row in rows if row.size == size and row.key not in keys and (bucket == largest or not row.strict)]
    assert len(keys) == bucket or not left


@pytest.mark.slow
@of_any_queue
@given(candidates(), measured())
def test_the_order_in_the_list_does_not_matter(rows: list[Candidate], measured: dict) -> None:
    assert schedule(rows, measured) == schedule(rows[::-1], measured)


@pytest.mark.slow
@of_any_queue
@given(candidates(), measured())
def test_every_row_gets_its_steps_and_none_more(rows: list[Candidate], measured: dict) -> None:
    left = {row.key: row for row in rows}
    for _ in range(sum(row.steps_left for row in rows)):
        for key in schedule(list(left.values()), measured):
            left[key] = replace(left[key], steps_left=left[key].steps_left - 1)
            if not left[key].steps_left:
                del left[key]
    assert not left


@of_any_queue
@given(st.lists(st.tuples(times, st.none() | times), min_size=1, max_size=12, unique=True), measured())
def test_among_equal_jobs_the_earliest_deadline_goes_first(
    jobs: list[tuple[float, float | None]], measured: dict
) -> None:
    rows = [row(str(n), created=created, deadline=deadline) for n, (created, deadline) in enumerate(jobs)]

    def deadline(row: Candidate) -> float:
        patience = row.created + PATIENCE_S
        return patience if row.deadline is None else min(row.deadline, patience)

    chosen = schedule(rows, measured)
    latest = max(deadline(row) for row in rows if row.key in chosen)
    assert all(deadline(row) >= latest - 1e-6 for row in rows if row.key not in chosen)


@of_any_queue
@given(candidates(), measured(), st.integers(1, 20))
def test_nothing_starves_under_a_flood_of_urgent_rows(rows: list[Candidate], measured: dict, rate: int) -> None:
    """A row can be passed for its patience and its job's own work; what comes after that waits behind it."""
    if not rows:
        return
    own_work = max(max(times.values()) for times in measured.values()) * STEPS * len(rows)
    late = max(row.created for row in rows) + PATIENCE_S + own_work + 1
    flood = [row(f"late {n}", created=late, deadline=late, size=SIZES[n % 3]) for n in range(rate)]
    left = {row.key: row for row in rows}
    for _ in range(sum(row.steps_left for row in rows)):
        run = [key for key in schedule([*left.values(), *flood], measured) if key in left]
        if not left:
            break
        assert run, "only rows that came much later ran"
        for key in run:
            left[key] = replace(left[key], steps_left=left[key].steps_left - 1)
            if not left[key].steps_left:
                del left[key]
    assert not left


@pytest.mark.parametrize("step", [LAUNCH_BOUND, MIXED, COMPUTE_BOUND])
@pytest.mark.parametrize("images", [16, 64])
def test_a_single_does_not_wait_for_a_large_call(step: dict[int, float], images: int) -> None:
    """It has its four steps among the next few, even when the large call is half done."""
    large = [row(f"{n:02}", "large") for n in range(images)]
    for _ in range(10):
        done = set(schedule(large, step_times(step)))
        large = [replace(r, steps_left=r.steps_left - 1) if r.key in done else r for r in large]
        large = [r for r in large if r.steps_left]
    single = row("single", created=1.0)
    for _ in range(STEPS):
        assert "single" in schedule([*large, single], step_times(step))
        single = replace(single, steps_left=single.steps_left - 1)


def test_a_large_call_that_waited_for_long_is_not_passed_any_more() -> None:
    large = [row(f"{n:02}", "large") for n in range(8)]
    waited = 8 * STEPS * COMPUTE_BOUND[1] + 1
    assert schedule([*large, row("single", created=1.0)], step_times(COMPUTE_BOUND)) == ["single"]
    assert schedule([*large, row("single", created=waited)], step_times(COMPUTE_BOUND)) == ["00"]


def test_rows_join_at_once_where_a_larger_batch_costs_nothing() -> None:
    rows = [row(str(n), created=n, steps_left=1 + n % 4) for n in range(8)]
    for count in range(1, 9):
        assert len(schedule(rows[:count], step_times(LAUNCH_BOUND))) == count


def test_rows_go_one_by_one_where_a_larger_batch_gains_nothing() -> None:
    rows = [row(str(n), created=n) for n in range(40)]
    for count in range(1, 41):
        assert schedule(rows[:count], step_times(COMPUTE_BOUND)) == ["0"]


def test_a_batch_size_that_is_slow_is_avoided() -> None:
    dip = {1: 1.0, 2: 1.2, 4: 1.5, 8: 4.0}
    assert batch_size([str(n) for n in range(12)], dip) == 4
    assert batch_size(["a"] * 12, dip) == 4


def test_one_call_alone_runs_in_the_batches_that_end_it_first() -> None:
    assert batch_size(["a"] * 16, MIXED) == 8
    assert batch_size(["a"] * 3, {1: 1.0, 2: 1.1, 4: 3.0}) == 2


def test_no_row_joins_that_would_make_a_padded_step_cost_more_than_it_gains() -> None:
    """Up to seven rows in a step of eight make fewer images a second than four in their own."""
    padded = {1: 2.0, 2: 3.0, 4: 5.0, 8: 9.0}
    assert [batch_size([str(n) for n in range(rows)], padded) for rows in (4, 5, 6, 7, 8)] == [4, 4, 4, 4, 8]


def test_a_small_call_goes_ahead_of_a_large_one_where_batches_gain_little() -> None:
    """A row counts as an image and as its part of a call: the single as 2, each of fifteen as 1 + 1/15."""
    little_gain = {1: 1.25, 2: 2.25, 4: 4.25, 8: 8.25}
    assert batch_size(["single", *["large"] * 15], little_gain) == 1
    assert batch_size(["large"] * 16, little_gain) == 8


def test_rows_of_a_call_end_together_when_one_would_trail_behind() -> None:
    """Nine rows in eight places take five steps, not eight."""
    rows = {f"{n}": row(f"{n}", "call") for n in range(9)}
    steps = 0
    while rows:
        for key in schedule(list(rows.values()), step_times(LAUNCH_BOUND)):
            rows[key] = replace(rows[key], steps_left=rows[key].steps_left - 1)
            if not rows[key].steps_left:
                del rows[key]
        steps += 1
    assert steps == 5


def test_the_images_of_a_call_begin_in_their_order() -> None:
    rows = [row(f"1796006035288-{n}", "call") for n in range(12)]
    begun = []
    for _ in range(12):
        (key,) = schedule(rows, step_times(COMPUTE_BOUND))
        rows = [r for r in rows if r.key != key]
        begun.append(int(key.partition("-")[2]))
    assert begun == list(range(12))


def test_strict_rows_wait_for_no_larger_batch_than_their_own_and_share_it() -> None:
    strict = [row(f"strict {n}", created=n, strict=True) for n in range(3)]
    fast = [row(f"fast {n}", created=n + 10) for n in range(9)]
    assert sorted(schedule([*strict, *fast], step_times(COMPUTE_BOUND))) == sorted(r.key for r in [*strict, *fast[:5]])
    assert schedule([replace(fast[0], created=-1), *strict], step_times(COMPUTE_BOUND)) == ["fast 0"]


@of_any_queue
@given(st.integers(1, 70), st.data())
def test_the_bucket_is_the_smallest_that_holds_the_rows(max_batch: int, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, max_batch))
    assert bucket_for(rows, False, max_batch) == min(size for size in buckets(max_batch) if size >= rows)
    assert bucket_for(rows, True, max_batch) == max_batch == buckets(max_batch)[-1]


def test_buckets_are_powers_of_two_and_three_times_these_and_the_largest_batch() -> None:
    assert buckets(1) == (1,)
    assert buckets(8) == (1, 2, 3, 4, 6, 8)
    assert buckets(20) == (1, 2, 3, 4, 6, 8, 12, 16, 20)
    assert buckets(64) == (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def test_batch_sizes_between_measured_ones_cost_what_lies_between() -> None:
    times = every_size({1: 1.0, 2: 2.0, 4: 3.0, 8: 7.0})
    assert times == {1: 1.0, 2: 2.0, 3: 2.5, 4: 3.0, 5: 4.0, 6: 5.0, 7: 6.0, 8: 7.0}
    assert every_size({1: 1.0}) == {1: 1.0}


def test_behind_a_full_window_throughput_counts() -> None:
    """Two calls are in sight: the smaller goes first alone, unless the queue behind them is long."""
    little_gain = step_times({1: 1.25, 2: 2.25, 4: 4.25, 8: 8.25})
    rows = [row("single"), *(row(f"{n}", "large", created=-1) for n in range(7))]
    assert schedule(rows, little_gain) == ["single"]
    assert len(schedule(rows, little_gain, backlogged=True)) == 8


def test_behind_many_rows_throughput_counts() -> None:
    little_gain = step_times({1: 1.25, 2: 2.25, 4: 4.25, 8: 8.25})
    rows = [row("single"), *(row(f"{n:02}", "large", created=-1) for n in range(16))]
    assert schedule(rows[:16], little_gain) == ["single"]
    assert len(schedule(rows, little_gain)) == 8


def test_a_backlog_is_worked_off_in_the_batches_that_make_the_most_images() -> None:
    assert len(schedule([row(str(n)) for n in range(9)], step_times(MIXED), backlogged=True)) == 8
    padded = step_times({1: 1.0, 2: 1.5, 4: 2.2, 8: 3.6})
    assert len(schedule([row(str(n)) for n in range(5)], padded, backlogged=True)) == 4
