"""Idempotency keys over all models: a key belongs to one model at a time, whose scripts decide what a call becomes."""

from typing import Any

from redis.asyncio import Redis

from jobs.queue.admission import Admission, IdempotencyKey
from jobs.queue.keys import ModelKeys, call_key
from jobs.queue.scripts import milliseconds, register_script

# For how long a model that gave a key away refuses calls that looked it up before.
MOVED_S = 10.0


class CallKeys:
    """Finds the job that a key names, whichever model it was for."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._claim = register_script(redis, "claim_key")
        self._look_up = register_script(redis, "job_of_key", "look_up_key")
        self._move = register_script(redis, "move_key")

    async def find(self, key: IdempotencyKey, model: str, life_ms: int) -> Admission | None:
        """The admission by which an earlier call answers this one; None when the key is free, and then for `model`.

        A free key stays with `model` for `life_ms` milliseconds. The outcome ``moved`` means that a call for another
        model is just being admitted under the key: look again.
        """
        name = call_key(key.client, key.key)
        while True:
            named, age_ms = await self._claim(keys=[name], args=[model, life_ms])
            owner, old = named.decode(), age_ms > milliseconds(MOVED_S)
            give_up: Any = "" if owner == model else milliseconds(MOVED_S)
            record = ModelKeys(owner).idempotency(key.client, key.key)
            outcome, job_id = await self._look_up(keys=[record], args=[key.fingerprint, give_up, int(old)])
            if owner == model and outcome in (b"free", b"unused"):
                return None
            if outcome == b"unused":
                return Admission("moved", 0, "")
            if outcome != b"free":
                return Admission(outcome.decode(), 0, job_id.decode(), model=owner)
            await self._move(keys=[name], args=[owner, model, life_ms])

    async def look_up(self, key: IdempotencyKey, model: str) -> Admission | None:
        """The admission by which an earlier call answers this one, as things are; a free key stays free."""
        named = await self._redis.get(call_key(key.client, key.key))
        owner = named.decode().split()[0] if named else model
        record = ModelKeys(owner).idempotency(key.client, key.key)
        outcome, job_id = await self._look_up(keys=[record], args=[key.fingerprint, "", 0])
        if outcome in (b"free", b"unused", b"moved"):
            return None
        return Admission(outcome.decode(), 0, job_id.decode(), model=owner)
