"""News of jobs over pub/sub: one connection and one channel per process, however many calls wait."""

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

from jobs.models import JobEvent, Preview

RECONNECT_PAUSE_S = 0.5
# A connection may die without a word; this long after its last one it is asked, and given as long again.
SILENCE_S = 5.0

log = logging.getLogger(__name__)

News = JobEvent | Preview | None
"""An event, a preview that was wished for, or None when some may have been missed."""


class JobEvents:
    """Receives the events of all jobs admitted with ``channel`` and hands each to whoever listens for its job.

    Pub/sub may lose messages when the connection breaks, so an event is a hint to look, never the only copy of a
    result: listeners are sent None after every (re)connection.
    """

    def __init__(self, redis: Redis) -> None:
        name = uuid.uuid4().hex
        self.channel = f"fourstep:events:{name}"
        self.preview_channel = f"fourstep:previews:{name}"
        self._redis = redis
        self._listeners: defaultdict[str, set[asyncio.Queue[News]]] = defaultdict(set)
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to receive, now or as soon as Redis answers."""
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
                await self._redis.initialize()  # a Cluster client must know its nodes before it can subscribe
                async with self._redis.pubsub() as pubsub:
                    await self._read(pubsub)
            except (RedisError, OSError) as error:
                log.warning("job events interrupted", extra={"error": str(error)})
                await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _read(self, pubsub: PubSub) -> None:
        """Dispatch what comes; a connection that is silent although it was asked for an answer is given up."""
        await pubsub.subscribe(self.preview_channel, self.channel)
        asked = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is not None:
                asked = False
                self._dispatch(message)
            elif asked:
                raise RedisTimeoutError(f"no answer on the channel of events for {SILENCE_S} s")
            else:
                await pubsub.ping()
                asked = True

    def _dispatch(self, message: dict[str, bytes]) -> None:
        if message["type"] == "message":
            kind = Preview if message["channel"].decode() == self.preview_channel else JobEvent
            event = kind.model_validate_json(message["data"])
            for listener in self._listeners.get(event.job_id, ()):
                listener.put_nowait(event)
        elif message["type"] == "subscribe" and message["channel"].decode() == self.channel:
            # Anew: what was told meanwhile is lost.
            for listener in chain(*self._listeners.values()):
                listener.put_nowait(None)
