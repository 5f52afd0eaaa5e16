"""Events of jobs over pub/sub: one connection per process, however many calls wait."""

import asyncio
import logging
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.models import JobEvent, Preview, UnreadableRecordError
from jobs.queue.clients.subscription import subscribed

RECONNECT_PAUSE_S = 0.5
# A connection that was silent for this long is sent a PING; silent for as long again, it is opened anew.
SILENCE_S = 5.0
# Previews that a listener has not taken; further ones are left out, since an unread stream must not fill the memory.
MOST_PREVIEWS = 64

log = logging.getLogger(__name__)

News = JobEvent | Preview | None
"""An event, a preview, or None when some of them may have been missed."""


class JobEvents:
    """Receives the events of all jobs admitted with ``channel``, and passes each to the listeners of its job.

    Pub/sub may lose messages when the connection breaks, so an event is a hint to read the job, never the only copy of
    a result: listeners get None after every (re)connection.
    """

    def __init__(self, redis: Redis) -> None:
        name = uuid.uuid4().hex
        self.channel = f"fourstep:events:{name}"
        self.preview_channel = f"fourstep:previews:{name}"
        self._redis = redis
        self._listeners: defaultdict[str, set[asyncio.Queue[News]]] = defaultdict(set)
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to receive as soon as Redis answers."""
        self._reader = asyncio.create_task(self._read_forever())

    async def aclose(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    @contextmanager
    def listen(self, job_id: str) -> Iterator[asyncio.Queue[News]]:
        """Collect the job's news from now on."""
        listener: asyncio.Queue[News] = asyncio.Queue()
        self._listeners[job_id].add(listener)
        try:
            yield listener
        finally:
            self._listeners[job_id].remove(listener)
            if not self._listeners[job_id]:
                del self._listeners[job_id]

    async def _read_forever(self) -> None:
        while True:
            try:
                channels = (self.preview_channel, self.channel)
                async with subscribed(self._redis, *channels, ignore_subscribe_messages=False) as pubsub:
                    await self._read(pubsub)
            except (RedisError, OSError) as error:
                log.warning("job events interrupted", extra={"error": str(error)})
            except Exception:
                log.exception("job events interrupted")
            await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _read(self, pubsub: PubSub) -> None:
        """Dispatch messages; TimeoutError of redis.exceptions when the connection does not answer a PING."""
        pinged = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is not None:
                pinged = False
                self._dispatch(message)
            elif pinged:
                raise RedisTimeoutError(f"no answer to a PING for {SILENCE_S} s")
            else:
                await pubsub.ping()
                pinged = True

    def _dispatch(self, message: dict[str, bytes]) -> None:
        if message["type"] == "message":
            kind = Preview if message["channel"].decode() == self.preview_channel else JobEvent
            try:
                event = kind.from_record(message["data"])
            except UnreadableRecordError as error:
                log.warning("a job event cannot be read", extra={"error": str(error)})
                return
            for listener in self._listeners.get(event.job_id, ()):
                if not isinstance(event, Preview) or listener.qsize() < MOST_PREVIEWS:
                    listener.put_nowait(event)
        elif message["type"] == "subscribe" and message["channel"].decode() == self.channel:
            # After a reconnection, messages sent in between are lost.
            for listener in chain(*self._listeners.values()):
                listener.put_nowait(None)
