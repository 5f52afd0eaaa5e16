"""Judges a run by its history: every acknowledged image has one end, honest and the same whoever asks."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from tests.chaos.history import Answer, End, History

# Statuses that a caller may get while everything breaks: the others are faults of the service.
HONEST = {"200", "202", "409", "429", "503", "broken", "gone"}


def faults_of(history: History, ends: Mapping[str, End | None]) -> list[str]:
    """Return the faults of a run, one line each; none when all promises held. `ends` has the end of each known job.

    A run in which nothing was called, acknowledged or made shows nothing, which is a fault too.
    """
    faults = list(_nothing_to_judge(history, ends))
    for answer in history.answers:
        faults += _faults_of_answer(answer, history)
    faults += _faults_of_calls(history.answers, ends)
    poisoned = history.poisoned
    for job, seeds in history.jobs.items():
        faults += _faults_of_end(job, len(seeds), ends.get(job), job in poisoned)
        faults += _contradictions(job, history.answers, ends.get(job))
    return faults


def honest_errors(history: History, ends: Mapping[str, End | None]) -> dict[str, int]:
    """The failures of acknowledged images by reason."""
    found = (ends.get(job) for job in history.jobs)
    return dict(Counter(reason for end in found if end for reason in end.failures.values()))


def _nothing_to_judge(history: History, ends: Mapping[str, End | None]) -> Iterator[str]:
    if not history.calls:
        yield "no call was answered"
    if not history.images:
        yield "no image was acknowledged"
    if not any(end and end.images for end in ends.values()):
        yield "no image was made"


def _faults_of_answer(answer: Answer, history: History) -> Iterator[str]:
    poisoned = answer.call.startswith("poison")
    late = answer.call.startswith("impatient") and answer.status == "504"
    if answer.status not in HONEST and not late and not (poisoned and answer.reason == "generation-error"):
        yield f"{answer.call} was answered {answer.status} {answer.reason}".rstrip()
    if answer.status == "503" and not answer.retry_after:
        yield f"{answer.call} was answered 503 without Retry-After"
    if not answer.intact:
        yield f"{answer.call} got an image that is not its hash"
    if (answer.status == "200" or answer.image_seeds) and answer.image_seeds != answer.seeds:
        yield f"{answer.call} got images of other seeds"


def _faults_of_calls(answers: list[Answer], ends: Mapping[str, End | None]) -> Iterator[str]:
    jobs: defaultdict[str, set[str]] = defaultdict(set)
    promised: dict[str, tuple[int, ...]] = {}
    for answer in answers:
        if answer.acknowledged and answer.job is not None:
            jobs[answer.call].add(answer.job)
            if promised.setdefault(answer.job, answer.seeds) != answer.seeds:
                yield f"job {answer.job} was promised to two calls"
    for call, named in jobs.items():
        # After a failure the key is free: the next attempt is a job of its own.
        whole = [job for job in named if (end := ends.get(job)) is None or not end.failures]
        if len(whole) > 1:
            yield f"{call} became {len(whole)} jobs"


def _faults_of_end(job: str, images: int, end: End | None, poisoned: bool) -> Iterator[str]:
    for index in range(images):
        ways = 0 if end is None else (index in end.images) + (index in end.failures)
        if ways != 1:
            yield f"image {index} of {job} has {ways} ends"
    if end is None:
        return
    if len(set(end.models.values())) > 1:
        yield f"{job} has images of {len(set(end.models.values()))} models"
    if "error" in end.failures.values() and not poisoned:
        yield f"{job} was given up, and nothing is wrong with it"
    for index, sha256 in end.solo.items():
        if end.images.get(index, sha256) != sha256:
            yield f"image {index} of {job} has other bits than alone"


def _contradictions(job: str, answers: list[Answer], end: End | None) -> Iterator[str]:
    shown: dict[int, str] = {} if end is None else dict(end.images)
    for answer in answers:
        if answer.job == job:
            for index, sha256 in answer.images.items():
                if shown.setdefault(index, sha256) != sha256:
                    yield f"image {index} of {job} has been two images"
