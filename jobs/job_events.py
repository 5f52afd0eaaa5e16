"""News of jobs over pub/sub: one connection and one channel per process, however many calls wait."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs.models import JobEvent

RECONNECT_PAUSE_S = 0.5

log = structlog.get_logger(__name__)


class JobEvents:
    """Receives the events of all jobs admitted with ``channel`` and hands each to whoever listens for its job.

    Pub/sub may lose messages when the connection breaks, so an event is a hint to look, never the only copy of a
    result: listeners are sent None after every (re)connection.
    """

    def __init__(self, redis: Redis) -> None:
        self.channel = f"fourstep:events:{uuid.uuid4().hex}"
        self._pubsub = redis.pubsub()
        self._listeners: defaultdict[str, set[asyncio.Queue[JobEvent | None]]] = defaultdict(set)
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to receive, now or as soon as Redis answers."""
        self._reader = asyncio.create_task(self._read_forever())

    async def aclose(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        await self._pubsub.aclose()

    @contextmanager
    def listen(self, job_id: str) -> Iterator[asyncio.Queue[JobEvent | None]]:
        """Collect the job's events from now on; None means that some may have been missed."""
        listener: asyncio.Queue[JobEvent | None] = asyncio.Queue()
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
                await self._pubsub.subscribe(self.channel)
                async for message in self._pubsub.listen():
                    self._dispatch(message)
            except (RedisError, OSError) as error:
                log.warning("job events interrupted", error=str(error))
                await asyncio.sleep(RECONNECT_PAUSE_S)

    def _dispatch(self, message: dict[str, bytes]) -> None:
        if message["type"] == "message":
            event = JobEvent.model_validate_json(message["data"])
            for listener in self._listeners.get(event.job_id, ()):
                listener.put_nowait(event)
        else:  # (re)subscribed
            for listener in chain(*self._listeners.values()):
                listener.put_nowait(None)
