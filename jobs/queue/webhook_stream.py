"""Ends of jobs that somebody is to be told of: a stream for each model, read by whichever API process comes first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from jobs.models import UnreadableRecordError, WebhookTarget
from jobs.queue.keys import ModelKeys
from jobs.queue.scripts import milliseconds

GROUP = "senders"
CONSUMER = "api"
"""One name for all: who takes an entry again does not depend on who had it."""

UNSENT_KEPT = 1000
PAGE = 100


@dataclass(frozen=True)
class Webhook:
    """The end of a job that `target` is told of; `attempts` counts those begun, this one included.

    `target` is None when its record cannot be read. `ended` is the time of that end, by the clock of Redis.
    """

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

    An entry stays pending until it is sent or given up, so that what a process had taken when it died is taken again
    after the pause that follows any attempt.
    """

    def __init__(self, redis: Redis, model: str) -> None:
        self.model = model
        self._redis: Any = redis
        self._keys = ModelKeys(model)

    async def take(self, pauses_s: Sequence[float], count: int) -> list[Webhook]:
        """Take up to `count` webhooks that are due: new ones, and those whose latest attempt, number *i* from 0, began
        `pauses_s[i]` seconds ago; after more attempts than pauses, the last pause counts.
        """
        try:
            streams = await self._redis.xreadgroup(GROUP, CONSUMER, {self._keys.webhooks: ">"}, count)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._create_group()
            return []
        taken = [_webhook(entry_id, fields, 1) for _, entries in streams or [] for entry_id, fields in entries]
        return taken + await self._take_again(pauses_s, count - len(taken))

    async def _take_again(self, pauses_s: Sequence[float], count: int) -> list[Webhook]:
        taken: list[Webhook] = []
        least, first = milliseconds(min(pauses_s)), "-"
        while len(taken) < count:
            page = await self._redis.xpending_range(self._keys.webhooks, GROUP, first, "+", PAGE, idle=least)
            for pending in page:
                attempts = pending["times_delivered"]
                pause_ms = milliseconds(pauses_s[min(attempts, len(pauses_s)) - 1])
                if pending["time_since_delivered"] < pause_ms or len(taken) == count:
                    continue
                # Of several processes that try, Redis gives it to the first: then it is not idle for the others.
                entry_id = pending["message_id"]
                claimed = await self._redis.xclaim(self._keys.webhooks, GROUP, CONSUMER, pause_ms, [entry_id])
                taken += [_webhook(entry_id, fields, attempts + 1) for entry_id, fields in claimed if fields]
            if len(page) < PAGE:
                break
            first = f"({page[-1]['message_id'].decode()}"
        return taken

    async def sent(self, webhook: Webhook) -> None:
        """Forget a webhook that has reached its target."""
        await self._redis.xack(self._keys.webhooks, GROUP, webhook.entry_id)
        await self._redis.xdel(self._keys.webhooks, webhook.entry_id)

    async def give_up(self, webhook: Webhook, reason: str) -> None:
        """Move a webhook to the dead letters, of which about the latest thousand are kept."""
        letter = webhook.fields | {"reason": reason}
        await self._redis.xadd(self._keys.unsent_webhooks, letter, maxlen=UNSENT_KEPT, approximate=True)
        await self.sent(webhook)

    async def given_up(self) -> list[tuple[Webhook, str]]:
        """The dead letters, oldest first, each with its reason."""
        entries = await self._redis.xrange(self._keys.unsent_webhooks)
        return [(_webhook(entry_id, fields, 0), fields[b"reason"].decode()) for entry_id, fields in entries]

    async def send_again(self, webhook: Webhook) -> None:
        """Move a dead letter back to those that are due."""
        await self._redis.xadd(self._keys.webhooks, webhook.fields)
        await self._redis.xdel(self._keys.unsent_webhooks, webhook.entry_id)

    async def _create_group(self) -> None:
        try:
            await self._redis.xgroup_create(self._keys.webhooks, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _webhook(entry_id: bytes, fields: dict[bytes, bytes], attempts: int) -> Webhook:
    try:
        target = WebhookTarget.from_record(fields[b"target"])
    except UnreadableRecordError:
        target = None
    if b"ended" in fields:
        ended = datetime.fromisoformat(fields[b"ended"].decode())
    else:
        ended = datetime.fromtimestamp(int(entry_id.partition(b"-")[0]) / 1000, UTC)
    return Webhook(entry_id.decode(), fields[b"job"].decode(), target, ended, attempts)
