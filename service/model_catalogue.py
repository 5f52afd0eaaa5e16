"""The models that workers have announced, as the API sees them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from redis.asyncio import Redis

from jobs.image_store import ImageStore
from jobs.models import ModelCard, WorkerLease
from jobs.queue import connection
from jobs.queue.job_client import JobClient
from jobs.queue.model_registry import ModelRegistry, known_models
from jobs.queue.replicas import Replicas
from service.problems import FieldError, Problem, UnknownModelError

# Age in seconds up to which calls share one reading. A new or lost model is noticed within this time.
MAX_AGE_S = 1.0


@dataclass(frozen=True)
class AnnouncedModel:
    """A model that workers have announced: its card, its live workers and the client of its queue."""

    card: ModelCard
    workers: list[WorkerLease]
    queue: JobClient


class ModelCatalogue:
    """Reads the announced models from Redis; methods raise redis.exceptions.RedisError when it is away."""

    def __init__(
        self,
        redis: Redis,
        default_model: str | None = None,
        aliases: Sequence[tuple[str, str]] = (),
        store: ImageStore | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        """`default_model` is for calls that name none; None for the first by name that has a worker.

        `aliases` are pairs of a name, perhaps with wildcards, and the model that it stands for; `store` holds the
        images that are not in Redis; the `replicas` of Redis must have each job, if there are any.
        """
        self._store, self._replicas = store, replicas
        self._redis = redis
        self._default_model = default_model
        self._aliases = aliases
        self._queues: dict[str, JobClient] = {}
        self._recent: list[AnnouncedModel] = []
        self._read_at = float("-inf")
        self._reading: asyncio.Task[list[AnnouncedModel]] | None = None

    async def read(self) -> list[AnnouncedModel]:
        """All announced models: the default one, those with live workers, then the others; each group by name."""
        served = []
        for name in await known_models(self._redis):
            registry = ModelRegistry(self._redis, name)
            workers = await registry.workers()
            # While a model is exchanged under its name, calls are for the one that the youngest worker serves.
            card = max(workers, key=_age_and_name).card if workers else await registry.card()
            if card is None and name == self._default_model:
                card = await registry.last_card()  # calls wait for its next worker, which they bring about
            if card:
                served.append(AnnouncedModel(_as_all_honour(card, workers), workers, self.queue(name)))
        self._recent = sorted(served, key=self._rank)
        self._read_at = time.monotonic()
        return self._recent

    async def queues(self) -> list[JobClient]:
        """The queues of all models ever announced, the default model's first; cards and workers are not read.

        To look up a job or an image, whose address does not name its model.
        """
        names = await known_models(self._redis)
        return [self.queue(name) for name in sorted(names, key=lambda name: (name != self._default_model, name))]

    async def is_writable(self) -> bool:
        """Return whether Redis takes writes; of a Cluster, each node that holds the registry or a model's queue."""
        return await connection.is_writable(self._redis, await known_models(self._redis))

    async def _at_most_a_second_old(self) -> list[AnnouncedModel]:
        if self._recent and time.monotonic() - self._read_at <= MAX_AGE_S:
            return self._recent
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self.read())
        # One call of a burst reads, and all share its result, or its error, so that errors do not queue up.
        return await asyncio.shield(self._reading)

    def queue(self, name: str) -> JobClient:
        """The queue of the model called `name`, announced or not."""
        if name not in self._queues:
            self._queues[name] = JobClient(self._redis, name, self._store, self._replicas)
        return self._queues[name]

    def _rank(self, model: AnnouncedModel) -> tuple[bool, bool, str]:
        return model.card.name != self._default_model, not model.workers, model.card.name

    async def ready(self) -> list[AnnouncedModel]:
        """The models with a live worker; empty while the default model has none, since most calls would wait."""
        served = await self.read()
        default = self._default_model or (served[0].card.name if served else None)
        ready = [model for model in served if model.workers]
        return ready if any(model.card.name == default for model in ready) else []

    async def choose(self, name: str | None) -> AnnouncedModel:
        """The model called `name`, or the default one; Problem 503 before it is announced, 422 for an unknown name.

        A model's own name comes before an alias.
        """
        served = await self._at_most_a_second_old()
        named = [self._default_model] if name is None else [name, self._stands_for(name)]
        for wanted in named:
            for model in served:
                if model.card.name == wanted or named == [None]:
                    return model
        if not served or name is None:
            which = self._default_model or "a model"
            detail = f"No worker has ever announced {which}; it may still be starting."
            raise Problem(503, "no-model", "No model yet", detail)
        names = [model.card.name for model in served]
        message = f"must be one of {', '.join(names)}"
        raise UnknownModelError([FieldError(field="model", message=message, limit=names)])

    def _stands_for(self, name: str) -> str | None:
        """The model that the alias `name` stands for, None if it is no alias."""
        return next((model for alias, model in self._aliases if fnmatchcase(name, alias)), None)


def _as_all_honour(card: ModelCard, workers: Sequence[WorkerLease]) -> ModelCard:
    """The `card` without what some of the `workers` do not know: a task is for any of them, of an older release too."""
    if not all(worker.card.noise_levels for worker in workers):
        card = card.model_copy(update={"noise_levels": [], "size_noise_levels": None})
    if any(worker.card.negative_prompt is None for worker in workers):
        card = card.model_copy(update={"negative_prompt": None})
    return card


def _age_and_name(lease: WorkerLease) -> tuple[float, str]:
    return lease.since, lease.worker_id
