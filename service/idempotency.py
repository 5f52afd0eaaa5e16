"""The ``Idempotency-Key`` header, by which a call that is sent again is carried out once."""

import hashlib
import json
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel

from jobs.queue.admission import IdempotencyKey
from service.problems import FieldError, Problem

IdempotencyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="name of the call; sent again, it is answered with the first call's images",
    ),
]


def read_idempotency_key(key: str | None, client: str, body: BaseModel) -> IdempotencyKey | None:
    """The key for the queue, None without the header; bodies that ask for the same have the same fingerprint.

    Fields that have their default do not count, so that a release may add some.
    """
    if key is None:
        return None
    asked = json.dumps(body.model_dump(exclude_defaults=True), sort_keys=True, default=_digest)
    return IdempotencyKey(client, key, hashlib.sha256(asked.encode()).hexdigest())


def _digest(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


def still_running(location: str) -> Problem:
    """409 problem; the earlier call's job is at `location`."""
    detail = f"The first call with this Idempotency-Key is not finished: see {location}."
    headers = {"Location": location}
    return Problem(409, "idempotency-key-in-use", "Still running", detail, headers=headers)


def used_for_another_body() -> Problem:
    message = "was used with another body; a new call needs a new key"
    error = FieldError(field="Idempotency-Key", message=message)
    return Problem(
        422, "idempotency-key-reused", "Another call has this key", f"Idempotency-Key: {message}", errors=[error]
    )
