"""Ends of jobs that somebody is to be told of: a stream for each caller, read by whichever API process comes first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from redis.asyncio import Redis

from jobs.models import UnreadableRecordError, WebhookTarget
from jobs.queue.keys import ModelKeys
from jobs.queue.scripts import milliseconds, register_script

UNSENT_KEPT = 1000
"""Dead letters of each caller; also in end_of_job.lua."""

UNSENT_KNOWN_S = 86400.0
"""Seconds for which a job is known of whose end nobody could be told, so that its webhook can be sent again."""


@dataclass(frozen=True)
class Webhook:
    """The end of a job that `target` is told of; `attempts` counts those begun, this one included.

    `target` is None when its record cannot be read. `ended` is the time of that end, by the clock of Redis. `caller` is
    the hash of the API key that asked for the job, '' without keys.
    """

    caller: str
    entry_id: str
    job_id: str
    target: WebhookTarget | None
    ended: datetime
    attempts: int

    @property
    def fields(self) -> dict[str, str]:
        """Its fields in a stream; the time of the job's end is that of its first entry."""
        target = self.target.to_record() if self.target else ""
        return {"job": self.job_id, "target": target, "ended": self.ended.isoformat()}


class WebhookStream:
    """The webhooks of one model. All methods raise redis.exceptions.RedisError when Redis is away.

    A webhook stays until it is sent or given up, so that what a process had taken when it died is taken again after the
    pause that follows any attempt. No caller's webhooks displace those of another.
    """

    def __init__(self, redis: Redis, model: str) -> None:
        self.model = model
        self._redis: Any = redis
        self._keys = ModelKeys(model)
        self._take = register_script(redis, "take_webhooks", allow_oom=True)
        self._overdue = register_script(redis, "overdue_webhooks")

    async def take(
        self, pauses_s: Sequence[float], count: int, each: int, under_way: Mapping[str, int] = MappingProxyType({})
    ) -> list[Webhook]:
        """Take up to `count` webhooks that are due: new ones, and those whose latest attempt, number *i* from 0, began
        `pauses_s[i]` seconds ago; after more attempts than pauses, the last pause counts.

        A caller has no more than `each` at once, those included that are `under_way`, nor more than it leaves of
        `count` to others.
        """
        pauses = [milliseconds(pause_s) for pause_s in pauses_s]
        busy = [part for caller_and_number in under_way.items() for part in caller_and_number]
        taken = await self._take(keys=[self._keys.webhook_callers], args=[count, each, len(pauses), *pauses, *busy])
        return [_webhook(caller, entry_id, _pairs(fields), attempts) for caller, entry_id, fields, attempts in taken]

    async def overdue(self, time_s: float) -> int:
        """The number of webhooks that have been due for `time_s` seconds, and that no process has taken."""
        return int(await self._overdue(keys=[self._keys.webhook_callers], args=[milliseconds(time_s)]))

    async def sent(self, webhook: Webhook, ttl_s: float) -> None:
        """Forget a webhook that has reached its target, and its job `ttl_s` seconds later."""
        async with self._redis.pipeline() as transaction:
            self._forget(transaction, webhook)
            transaction.pexpire(self._keys.job(webhook.job_id), milliseconds(ttl_s), lt=True)
            await transaction.execute()

    async def give_up(self, webhook: Webhook, reason: str) -> None:
        """Move a webhook, and keep its job, for the dead letters: about the latest thousand of each caller."""
        letters, letter = self._keys.unsent_webhooks(webhook.caller), webhook.fields | {"reason": reason}
        async with self._redis.pipeline() as transaction:
            transaction.sadd(self._keys.unsent_webhook_callers, webhook.caller)
            transaction.xadd(letters, letter, maxlen=UNSENT_KEPT, approximate=True)
            transaction.pexpire(self._keys.job(webhook.job_id), milliseconds(UNSENT_KNOWN_S), gt=True)
            self._forget(transaction, webhook)
            await transaction.execute()

    async def given_up(self) -> list[tuple[Webhook, str]]:
        """The dead letters, each with its reason: of one caller after the other, oldest first."""
        found = []
        for caller in sorted(await self._redis.smembers(self._keys.unsent_webhook_callers)):
            letters = await self._redis.xrange(self._keys.unsent_webhooks(caller.decode()))
            found += [(_webhook(caller, name, fields, 0), fields[b"reason"].decode()) for name, fields in letters]
        return found

    async def send_again(self, webhook: Webhook) -> None:
        """Move a dead letter back to those that are due."""
        caller = webhook.caller
        entry_id = (await self._redis.xadd(self._keys.webhooks(caller), webhook.fields)).decode()
        async with self._redis.pipeline() as transaction:
            transaction.zadd(self._keys.webhooks_due(caller), {f"0 {entry_id}": _put_ms(entry_id)})
            transaction.sadd(self._keys.webhook_callers, caller)
            transaction.xdel(self._keys.unsent_webhooks(caller), webhook.entry_id)
            await transaction.execute()

    def _forget(self, transaction: Any, webhook: Webhook) -> None:
        transaction.xdel(self._keys.webhooks(webhook.caller), webhook.entry_id)
        transaction.zrem(self._keys.webhooks_due(webhook.caller), f"{webhook.attempts} {webhook.entry_id}")


def _pairs(fields: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _put_ms(entry_id: str) -> int:
    """The time at which Redis put an entry into its stream, a Unix time in ms."""
    return int(entry_id.partition("-")[0])


def _webhook(caller: bytes, entry_id: bytes, fields: dict[bytes, bytes], attempts: int) -> Webhook:
    try:
        target = WebhookTarget.from_record(fields[b"target"])
    except UnreadableRecordError:
        target = None
    if b"ended" in fields:
        ended = datetime.fromisoformat(fields[b"ended"].decode())
    else:
        ended = datetime.fromtimestamp(_put_ms(entry_id.decode()) / 1000, UTC)
    return Webhook(caller.decode(), entry_id.decode(), fields[b"job"].decode(), target, ended, attempts)
