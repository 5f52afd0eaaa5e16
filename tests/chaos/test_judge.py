"""The judge finds each fault that is planted in a history, and none in a good one."""

from dataclasses import replace

import pytest

from tests.chaos.history import Answer, End, History
from tests.chaos.judge import faults_of, honest_errors
from tests.chaos.trial import Verdict

GOOD = Answer("call 1", (7, 8), "200", "a", image_seeds=(7, 8), images={0: "x", 1: "y"})
END = End(images={0: "x", 1: "y"}, models={0: "m", 1: "m"}, solo={0: "x"})


def judged(*answers: Answer, **ends: End | None) -> list[str]:
    return faults_of(History(list(answers)), ends)


def test_an_honest_run_has_no_faults() -> None:
    history = [
        Answer("call 1", (7, 8), "broken"),
        Answer("call 1", (7, 8), "503", retry_after=True),
        Answer("call 1", (7, 8), "409", "a", "idempotency-key-in-use"),
        GOOD,
        Answer("call 2", (9,), "202", "b"),
        Answer("impatient 4", (2,), "504", None, "deadline-expired"),
        Answer("call 5", (3,), "202", "d"),
        Answer("call 5", (3,), "200", "e", image_seeds=(3,), images={0: "u"}),
        Answer("poison 3", (1,), "202", "c"),
        Answer("poison 3", (1,), "500", "c", "generation-error"),
    ]
    ends = {"a": END, "b": End(failures={0: "expired"}), "c": End(failures={0: "error"})}
    ends |= {"d": End(failures={0: "transient"}), "e": End(images={0: "u"})}
    assert judged(*history, **ends) == []
    assert honest_errors(History(history), ends) == {"expired": 1, "error": 1, "transient": 1}


@pytest.mark.parametrize(
    ("answers", "ends", "fault"),
    [
        ([GOOD], {}, "image 0 of a has 0 ends"),
        ([GOOD], {"a": None}, "image 1 of a has 0 ends"),
        ([GOOD], {"a": End(images={0: "x"})}, "image 1 of a has 0 ends"),
        ([GOOD], {"a": replace(END, failures={0: "expired"})}, "image 0 of a has 2 ends"),
        ([GOOD], {"a": replace(END, images={0: "x", 1: "z"}, solo={})}, "image 1 of a has been two images"),
        ([GOOD, replace(GOOD, images={0: "z"})], {"a": END}, "image 0 of a has been two images"),
        ([GOOD], {"a": replace(END, models={0: "m", 1: "n"})}, "a has images of 2 models"),
        ([GOOD], {"a": replace(END, solo={1: "z"})}, "image 1 of a has other bits than alone"),
        ([GOOD], {"a": End(images={0: "x"}, failures={1: "error"})}, "a was given up, and nothing is wrong with it"),
        ([GOOD, replace(GOOD, job="b", images={})], {"a": END, "b": END}, "call 1 became 2 jobs"),
        ([GOOD, replace(GOOD, call="call 2", seeds=(9, 10))], {"a": END}, "job a was promised to two calls"),
        ([replace(GOOD, image_seeds=(7, 9))], {"a": END}, "call 1 got images of other seeds"),
        ([replace(GOOD, image_seeds=(), images={})], {"a": END}, "call 1 got images of other seeds"),
        ([replace(GOOD, intact=False)], {"a": END}, "call 1 got an image that is not its hash"),
        ([Answer("call 1", (7,), "500", reason="internal-error")], {}, "call 1 was answered 500 internal-error"),
        ([Answer("call 1", (7,), "502")], {}, "call 1 was answered 502"),
        ([Answer("call 1", (7,), "504", reason="deadline-expired")], {}, "call 1 was answered 504 deadline-expired"),
        ([Answer("call 1", (7,), "503")], {}, "call 1 was answered 503 without Retry-After"),
    ],
)
def test_a_planted_fault_is_found(answers: list[Answer], ends: dict[str, End | None], fault: str) -> None:
    assert fault in judged(*answers, **ends)


@pytest.mark.parametrize(
    ("answers", "ends", "fault"),
    [
        ([], {}, "no call was answered"),
        ([Answer("call 1", (7,), "503", retry_after=True)], {}, "no image was acknowledged"),
        ([Answer("call 1", (7,), "202", "a")], {"a": End(failures={0: "expired"})}, "no image was made"),
    ],
)
def test_a_run_that_shows_nothing_is_no_good_one(
    answers: list[Answer], ends: dict[str, End | None], fault: str
) -> None:
    assert fault in judged(*answers, **ends)


@pytest.mark.parametrize("injected", [{}, {"sockets cut": 3, "worker kill -9": 0}])
def test_a_trial_without_one_of_its_faults_does_not_hold(injected: dict[str, int]) -> None:
    good = Verdict(
        seconds=1.0,
        calls=1,
        ends=1,
        acknowledged_images=2,
        completed=2,
        honest_errors={},
        wrong=[],
        solo=1,
        stored=2,
        counted_ok=2,
        counted_duplicates=0,
        redeliveries=0,
        worker_deaths=0,
        answers={"200": 1},
        counted_answers=1,
        api_deaths=0,
        injected={"sockets cut": 3},
    )
    assert good.holds
    assert not replace(good, injected=injected).holds
