"""The names of all Redis keys. ``{model}`` is a hash tag: all keys of one model lie in one slot of a Cluster."""

import hashlib
import json

KNOWN_MODELS = "fourstep:models"
NEVER_WRITTEN = f"fourstep:{{{KNOWN_MODELS}}}:nothing"
"""Lies in the slot of KNOWN_MODELS, as that is its hash tag."""
WORKER_GROUP = "workers"


class ModelKeys:
    """The keys of one model."""

    def __init__(self, model: str) -> None:
        self._prefix = f"fourstep:{{{model}}}"
        self.unused = f"{self._prefix}:unused"
        """Never written: takes the place of a key that a script's call does not need."""
        self.tasks = f"{self._prefix}:tasks"
        self.sets = f"{self._prefix}:sets"
        self.card = f"{self._prefix}:card"
        self.last_card = f"{self._prefix}:last-card"
        self.workers = f"{self._prefix}:workers"
        self.since = f"{self._prefix}:since"
        self.leases = f"{self._prefix}:worker:"
        """The prefix of the names of the workers' leases."""
        self.usage = f"{self._prefix}:usage"
        """Also named in settle.lua."""
        self.throughput = f"{self._prefix}:throughput"
        self.dead_letters = f"{self._prefix}:dead-letters"
        self.webhook_callers = f"{self._prefix}:webhook-callers"
        """Callers whose webhooks are not all sent; end_of_job.lua has this name too, and those of each caller's."""
        self.unsent_webhook_callers = f"{self._prefix}:unsent-webhook-callers"
        self.cancellations = f"{self._prefix}:cancellations"
        self.preview_subscriptions = f"{self._prefix}:preview-wishes"

    def job(self, job_id: str) -> str:
        return f"{self._prefix}:job:{job_id}"

    def idempotency(self, client: str, key: str) -> str:
        return f"{self._prefix}:idempotency:{_digest(client, key)}"

    def image(self, sha256: str, image_format: str) -> str:
        return f"{self._prefix}:image:{sha256}.{image_format}"

    def input(self, sha256: str) -> str:
        """A picture that calls brought, as a hash: its file, and the number of jobs that need it."""
        return f"{self._prefix}:input:{sha256}"

    def webhooks(self, caller: str) -> str:
        return f"{self._prefix}:webhooks:{caller}"

    def webhooks_due(self, caller: str) -> str:
        """The caller's webhooks by the times (ms) at which they are due, each after the number of its attempts."""
        return f"{self._prefix}:webhooks-due:{caller}"

    def unsent_webhooks(self, caller: str) -> str:
        return f"{self._prefix}:unsent-webhooks:{caller}"

    def worker(self, worker_id: str) -> str:
        return f"{self.leases}{worker_id}"


def call_key(client: str, key: str) -> str:
    """Names the model whose job an idempotency key belongs to; in a Cluster it lies in a slot of its own."""
    return f"fourstep:call:{_digest(client, key)}"


def rate_record(client: str) -> str:
    """The record of what a client has been charged for, over all models; in a Cluster it lies in a slot of its own."""
    return f"fourstep:rate:{_digest(client)}"


def _digest(*parts: str) -> str:
    """A short hash of names that clients choose freely."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
