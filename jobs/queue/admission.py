"""Conditions of an admission beside the tasks, and its outcome."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

AdmissionOutcome = Literal[
    "admitted", "full", "store-full", "limited", "running", "finished", "mismatch", "moved", "unreplicated"
]
PROMISES_A_JOB = ("admitted", "running", "finished")


@dataclass(frozen=True)
class IdempotencyKey:
    """The name that a `client` gives a call, which is then admitted once; `fingerprint` is the hash of its body."""

    client: str
    key: str
    fingerprint: str


@dataclass(frozen=True)
class RateLimit:
    """The rates of `client` over all models: for each unit, what a job costs, and what a minute allows.

    A minute's worth may come in one burst.
    """

    client: str
    per_minute: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Admission:
    """The outcome of an admission.

    - ``admitted``: it is queued as `job_id`
    - ``full``: `queued_images` already wait; at the workers' pace it would fit in `wait_s` seconds (0 when unknown)
    - ``store-full``: Redis has used nine tenths of its ``maxmemory``; the rest is for the jobs admitted before
    - ``limited``: over the client's rate of the unit `over`, which still allows `remaining`; it would fit in `wait_s`
      seconds
    - ``running``, ``finished``: its idempotency key names the earlier job `job_id`, of `model`
    - ``mismatch``: its idempotency key was used with another body
    - ``moved``: its idempotency key was given to another model just then
    - ``unreplicated``: fewer replicas have it than must; it was cancelled, but not an earlier job that its key names

    `created` is the Unix time of the admitted job, by the clock of Redis.
    """

    outcome: AdmissionOutcome
    queued_images: int
    job_id: str
    model: str = ""
    over: str = ""
    remaining: int = 0
    wait_s: float = 0.0
    created: float | None = None

    @property
    def ok(self) -> bool:
        return self.outcome == "admitted"
