"""What may be asked of an admission beside the tasks, and what it answers."""

from dataclasses import dataclass
from typing import Literal

AdmissionOutcome = Literal["admitted", "full", "store-full", "limited", "running", "finished", "mismatch"]


@dataclass(frozen=True)
class IdempotencyKey:
    """A call's name: with the same `fingerprint` (of its body) it is admitted once per `client`."""

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
    """What became of the job.

    - ``admitted``: it is queued as `job_id`
    - ``full``: `queued_images` already wait; at the workers' pace it would fit in `wait_s` seconds (0: not known)
    - ``store-full``: Redis has used nine tenths of its ``maxmemory``; the rest is for what was admitted before
    - ``limited``: over the client's rate; it would fit in `wait_s` seconds
    - ``running``, ``finished``: its idempotency key names the earlier job `job_id`
    - ``mismatch``: its idempotency key was used with another body

    `remaining_images` is what the client's rate still allows, where there is a limit.
    """

    outcome: AdmissionOutcome
    queued_images: int
    job_id: str
    remaining_images: int | None = None
    wait_s: float = 0.0

    @property
    def ok(self) -> bool:
        return self.outcome == "admitted"
