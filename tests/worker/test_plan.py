"""What the plan promises, whatever waits."""

from hypothesis import given
from hypothesis import strategies as st

from worker.plan import PATIENCE_S, Candidate, bucket_for, buckets, plan

SIZES = [(64, 64), (64, 96), (96, 64)]
times = st.floats(min_value=0, max_value=1e3, allow_nan=False)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(0, 30))
    return [
        Candidate(str(key), draw(st.sampled_from(SIZES)), draw(times), draw(st.none() | times)) for key in range(count)
    ]


def _urgency(candidate: Candidate) -> tuple[float, float]:
    deadline = candidate.created + PATIENCE_S if candidate.deadline is None else candidate.deadline
    return deadline, candidate.created


@given(candidates(), st.integers(1, 9))
def test_a_step_is_one_full_batch_of_one_size_with_the_most_urgent_row(rows: list[Candidate], max_batch: int) -> None:
    keys = plan(rows, max_batch)
    chosen = [row for row in rows if row.key in keys]
    assert len(keys) == len(set(keys)) == len(chosen) <= max_batch
    assert bool(keys) == bool(rows)
    if rows:
        assert len({row.size for row in chosen}) == 1
        assert min(map(_urgency, rows)) == min(map(_urgency, chosen))
        lane = [row for row in rows if row.size == chosen[0].size]
        assert len(chosen) == min(len(lane), max_batch)
        assert all(_urgency(left) >= max(map(_urgency, chosen)) for left in lane if left not in chosen)


@given(candidates(), st.integers(1, 9))
def test_the_order_of_arrival_in_the_list_does_not_matter(rows: list[Candidate], max_batch: int) -> None:
    assert plan(rows, max_batch) == plan(rows[::-1], max_batch)


@given(candidates(), st.integers(1, 9), st.integers(1, 4))
def test_every_row_gets_its_steps_and_none_more(rows: list[Candidate], max_batch: int, steps: int) -> None:
    left = {row.key: steps for row in rows}
    for _ in range(steps * len(rows)):
        for key in plan([row for row in rows if left[row.key]], max_batch):
            left[key] -= 1
    assert all(count == 0 for count in left.values())


def test_a_row_without_deadline_overtakes_those_created_long_after() -> None:
    patient = Candidate("patient", (64, 64), created=0, deadline=None)
    later = [Candidate(str(i), (64, 64), created=50, deadline=61) for i in range(8)]
    assert plan([*later, patient], 4)[0] == "patient"


@given(st.integers(1, 70), st.data())
def test_the_bucket_is_the_smallest_that_holds_the_rows(max_batch: int, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, max_batch))
    assert bucket_for(rows, False, max_batch) == min(size for size in buckets(max_batch) if size >= rows)
    assert bucket_for(rows, True, max_batch) == max_batch == buckets(max_batch)[-1]


def test_buckets_are_powers_of_two_and_the_largest_batch() -> None:
    assert buckets(1) == (1,)
    assert buckets(8) == (1, 2, 4, 8)
    assert buckets(12) == (1, 2, 4, 8, 12)
