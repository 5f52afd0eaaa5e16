"""The models that workers have announced: each one's card, and a lease for every worker that is alive."""

import logging
import socket
from functools import lru_cache
from typing import Any

from redis.asyncio import Redis

from jobs.models import ModelCard, UnreadableRecordError, WorkerLease
from jobs.queue.keys import KNOWN_MODELS, ModelKeys
from jobs.queue.scripts import milliseconds, register_script

log = logging.getLogger(__name__)

CARD_TTL_S = 24 * 3600.0


async def known_models(redis: Redis) -> list[str]:
    """The names of all models ever announced on this Redis, sorted."""
    client: Any = redis
    return sorted(name.decode() for name in await client.smembers(KNOWN_MODELS))


def worker_prefix(pid: int) -> str:
    """Return how the id of the worker begins whose process on this machine is `pid`."""
    return f"{socket.gethostname()}-{pid}-"


class ModelRegistry:
    """Card and workers of one model. All methods raise redis.exceptions.RedisError when Redis is away."""

    def __init__(self, redis: Redis, model: str) -> None:
        self.model = model
        self._redis: Any = redis  # redis-py types every answer as bytes | str; ours are bytes
        self._keys = ModelKeys(model)
        self._announce = register_script(redis, "announce")
        self._register_model = register_script(redis, "register_model")

    async def announce(self, worker_id: str, card: ModelCard, ttl_s: float) -> None:
        """Say that this worker is warm and serves `card`; to be repeated within `ttl_s` seconds."""
        await self._announce(
            keys=[
                self._keys.card,
                self._keys.worker(worker_id),
                self._keys.workers,
                self._keys.since,
                self._keys.last_card,
            ],
            args=[card.to_record(), milliseconds(CARD_TTL_S), milliseconds(ttl_s), worker_id],
        )
        await self._register_model(keys=[KNOWN_MODELS], args=[self.model])

    async def deregister(self, worker_id: str) -> None:
        """Remove the worker's lease; the model's card stays known."""
        await self._redis.delete(self._keys.worker(worker_id))
        await self._forget(worker_id)

    async def card(self) -> ModelCard | None:
        """The card announced last, up to a day ago; None without one that can be read."""
        card_json = await self._redis.get(self._keys.card)
        return None if card_json is None else _card(self.model, card_json)

    async def last_card(self) -> ModelCard | None:
        """The card announced last, however long ago; None without one that can be read."""
        card_json = await self._redis.get(self._keys.last_card)
        return None if card_json is None else _card(self.model, card_json)

    async def known_workers(self) -> int:
        """The number of workers that have announced themselves, in one cheap command.

        Workers that died count until `workers` is called.
        """
        return int(await self._redis.scard(self._keys.workers))

    async def workers(self) -> list[WorkerLease]:
        """The workers whose lease has not expired, by name; without those whose card cannot be read."""
        worker_ids = [worker_id.decode() for worker_id in sorted(await self._redis.smembers(self._keys.workers))]
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(self._keys.since)
            for worker_id in worker_ids:
                pipeline.get(self._keys.worker(worker_id))
                pipeline.pttl(self._keys.worker(worker_id))
            since, *answers = await pipeline.execute()
        leases = []
        for worker_id, card_json, ttl_ms in zip(worker_ids, answers[::2], answers[1::2], strict=True):
            if card_json is None or ttl_ms < 0:
                await self._forget(worker_id)
                continue
            if card := _card(self.model, card_json):
                began = float(since.get(worker_id.encode(), 0))
                leases.append(WorkerLease(worker_id=worker_id, expires_in=ttl_ms / 1000, card=card, since=began))
        return leases

    async def _forget(self, worker_id: str) -> None:
        await self._redis.srem(self._keys.workers, worker_id)
        await self._redis.hdel(self._keys.since, worker_id)


@lru_cache(256)  # it is read every second: parsed once, and logged once
def _card(model: str, card_json: bytes) -> ModelCard | None:
    try:
        return ModelCard.from_record(card_json)
    except UnreadableRecordError as error:
        log.error("a worker's card cannot be read: it is ignored", extra={"model": model, "error": str(error)})
        return None
