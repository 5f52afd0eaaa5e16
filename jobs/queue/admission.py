"""Conditions of an admission beside the tasks, and its outcome."""

from dataclasses import dataclass
from typing import Literal

AdmissionOutcome = Literal["admitted", "full", "store-full", "limited", "running", "finished", "mismatch"]


@dataclass(frozen=True)
class IdempotencyKey:
    """The name that a `client` gives a call, which is then admitted once; `fingerprint` is the hash of its body."""

    client: str
    key: str
    fingerprint: str


@dataclass(frozen=True)
class RateLimit:
    """At most `images_per_minute` for `client`; a minute's worth may come in one burst."""

    client: str
    images_per_minute: int


@dataclass(frozen=True)
class Admission:
    """The outcome of an admission.

    - ``admitted``: it is queued as `job_id`
    - ``full``: `queued_images` already wait; at the workers' pace it would fit in `wait_s` seconds (0 when unknown)
    - ``store-full``: Redis has used nine tenths of its ``maxmemory``; the rest is for the jobs admitted before
    - ``limited``: over the client's rate; it would fit in `wait_s` seconds
    - ``running``, ``finished``: its idempotency key names the earlier job `job_id`
    - ``mismatch``: its idempotency key was used with another body

    `remaining_images` is the number that the client's rate still allows, None without a limit. `created` is the
    Unix time of the admitted job, by the clock of Redis.
    """

    outcome: AdmissionOutcome
    queued_images: int
    job_id: str
    remaining_images: int | None = None
    wait_s: float = 0.0
    created: float | None = None

    @property
    def ok(self) -> bool:
        return self.outcome == "admitted"
