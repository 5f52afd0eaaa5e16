"""Tasks that were given up because every worker that took them failed."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio import Redis

from jobs.models import LONGEST_WAIT_S, ImageFailure, ImageTask, UnreadableRecordError, WireModel
from jobs.queue.keys import ModelKeys

Record = TypeVar("Record", bound=WireModel)

NO_REASON = ImageFailure(index=0, reason="error", detail="the reason cannot be read")


@dataclass(frozen=True)
class DeadLetter:
    """A task as it was queued, and the failure that its caller got; `buried` is a Unix time in seconds.

    `task` is None when it cannot be read.
    """

    id: str
    buried: float
    task: ImageTask | None
    failure: ImageFailure

    def as_new_job(self, now: float) -> ImageTask | None:
        """The task as an asynchronous job of its own; the same letter always makes the same job id."""
        if self.task is None:
            return None
        job_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.task.job_id}/{self.task.index}/{self.id}").hex
        deadline = now + LONGEST_WAIT_S
        return self.task.model_copy(update={"job_id": job_id, "index": 0, "created": now, "deadline": deadline})


class DeadLetters:
    """The dead letters of one model; Redis keeps about the latest thousand."""

    def __init__(self, redis: Redis, model: str) -> None:
        self._redis: Any = redis
        self._key = ModelKeys(model).dead_letters

    async def read(self) -> list[DeadLetter]:
        """All letters, oldest first."""
        return [_letter(entry_id, fields) for entry_id, fields in await self._redis.xrange(self._key)]

    async def drop(self, letter_ids: Sequence[str]) -> int:
        """Delete letters; returns how many of them existed."""
        return await self._redis.xdel(self._key, *letter_ids) if letter_ids else 0


def _letter(entry_id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    name = entry_id.decode()
    return DeadLetter(
        id=name,
        buried=int(name.partition("-")[0]) / 1000,
        task=_readable(ImageTask, fields.get(b"task", b"")),
        failure=_readable(ImageFailure, fields.get(b"failure", b"")) or NO_REASON,
    )


def _readable(kind: type[Record], record: bytes) -> Record | None:
    try:
        return kind.from_record(record)
    except UnreadableRecordError:
        return None
