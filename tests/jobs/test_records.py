"""The records of every release are read."""

import json
from pathlib import Path

import pytest

from jobs import models
from jobs.models import ImageTask, UnreadableRecordError, WireModel
from jobs.testing.samples import sample_tasks

RELEASES = sorted((Path(__file__).parent / "records").glob("*.json"))
RECORDS = [
    pytest.param(getattr(models, kind), record, id=f"{release.stem} {kind} {number}")
    for release in RELEASES
    for kind, records in json.loads(release.read_text()).items()
    for number, record in enumerate(records)
]


@pytest.mark.parametrize(("kind", "record"), RECORDS)
def test_a_release_s_records_are_read_whole(kind: type[WireModel], record: dict[str, object]) -> None:
    read = kind.from_record(json.dumps(record).encode())
    written = json.loads(read.to_record())
    assert written.pop("schema_version") == models.SCHEMA_VERSION
    record.pop("schema_version", None)
    assert _has(written, record)


def _has(written: object, record: object) -> bool:
    """Return whether all that stands in `record` stands in `written`, which may have fields of a later release."""
    if isinstance(record, dict) and isinstance(written, dict):
        return all(name in written and _has(written[name], value) for name, value in record.items())
    if isinstance(record, list) and isinstance(written, list):
        return len(record) == len(written) and all(map(_has, written, record))
    return written == record


def test_a_field_of_a_later_release_is_ignored() -> None:
    (task,) = sample_tasks(1)
    later = json.loads(task.to_record()) | {"schema_version": 9, "of_another_version": 1}
    assert ImageTask.from_record(json.dumps(later).encode()) == task


@pytest.mark.parametrize("record", [b"", b"\xff", b"[]", b'{"prompt": "a secret", "format": "a secret"}'])
def test_a_record_that_cannot_be_read_is_not_quoted(record: bytes) -> None:
    with pytest.raises(UnreadableRecordError) as refused:
        ImageTask.from_record(record)
    assert "a secret" not in str(refused.value)
    assert refused.value.__suppress_context__
