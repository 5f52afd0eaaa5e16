"""Records of a task's images, also of a task that cannot be read."""

from pydantic import Field

from jobs.models import DiverseSet, FailureReason, ImageFailure, ImageTask, UnreadableRecordError, WireModel

MOST_IMAGES = 64


def failure_records(
    indices: range, reason: FailureReason, detail: str, transient: bool = False
) -> list[tuple[int, str, bytes]]:
    """The failures of images, as the script ``settle`` takes them: index, record, no bytes."""
    failures = [ImageFailure(index=index, reason=reason, detail=detail, transient=transient) for index in indices]
    return [(failure.index, failure.to_record(), b"") for failure in failures]


def outcome_of(stored: bytes | None) -> str:
    """The outcome of an image that others settled: the reason of a failure, else ``duplicate``."""
    kind, _, record = (stored or b"").partition(b" ")
    if kind != b"failure":
        return "duplicate"
    try:
        return ImageFailure.from_record(record).reason
    except UnreadableRecordError:
        return "error"


def shifted(task: ImageTask, ahead_s: float) -> ImageTask:
    """The task with its times by a clock that is ahead of that of Redis."""
    deadline = None if task.deadline is None else task.deadline + ahead_s
    return task.model_copy(update={"created": task.created + ahead_s, "deadline": deadline})


class _Place(WireModel):
    """The part of a task that says which images of which job it is."""

    job_id: str
    index: int = Field(ge=0)
    select: DiverseSet | None = None


def place_of(record: bytes) -> tuple[str, range]:
    """The job of a task that cannot be read, and the indices of its images, as far as it tells."""
    try:
        place = _Place.from_record(record)
    except UnreadableRecordError:
        return "", range(1)
    images = min(place.select.images, MOST_IMAGES) if place.select else 1
    return place.job_id, range(place.index, place.index + images)
