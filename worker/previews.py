"""Unfinished images for whoever is looking: wishes come in from Redis, small pictures go out; nobody else pays."""

import asyncio
import base64
import logging
import time
from contextlib import suppress

from redis.exceptions import RedisError

from jobs.models import ImageFormat, Preview, PreviewWish
from jobs.queue import TaskQueue
from worker.image_bytes import encode_image
from worker.row import Sketch

log = logging.getLogger(__name__)

WISH_S = 6.0
"""How long a wish lasts unless it is repeated."""

RESUBSCRIBE_PAUSE_S = 0.5
FORMAT: ImageFormat = "jpeg"
QUALITY = 80


class Previews:
    """Lives in the event loop; `watched` is read by the device thread too."""

    def __init__(self, queue: TaskQueue) -> None:
        self.watched: dict[str, set[str]] = {}
        """The channels to tell, by job: empty when nobody looks at anything."""
        self._queue = queue
        self._until: dict[tuple[str, str], float] = {}
        self._sketches: asyncio.Queue[list[Sketch]] = asyncio.Queue()

    def show(self, sketches: list[Sketch]) -> None:
        """Publish `sketches` soon, in the order of the calls."""
        self._sketches.put_nowait(sketches)

    async def heed_wishes(self) -> None:
        while True:
            with suppress(RedisError, OSError):
                async for wish in self._queue.preview_wishes():
                    self._grant(wish)
            await asyncio.sleep(RESUBSCRIBE_PAUSE_S)

    async def publish_forever(self) -> None:
        while True:
            for sketch in await self._sketches.get():
                with suppress(RedisError, OSError):  # a preview that is late is worth nothing
                    await self._publish(sketch)

    def _grant(self, wish: PreviewWish) -> None:
        self._until[wish.job_id, wish.channel] = time.monotonic() + WISH_S
        self.watched.setdefault(wish.job_id, set()).add(wish.channel)
        asyncio.get_running_loop().call_later(WISH_S + 0.01, self._expire, wish)

    def _expire(self, wish: PreviewWish) -> None:
        if self._until.get((wish.job_id, wish.channel), 0.0) > time.monotonic():
            return  # repeated since
        self._until.pop((wish.job_id, wish.channel), None)
        channels = self.watched.get(wish.job_id, set())
        channels.discard(wish.channel)
        if not channels:
            self.watched.pop(wish.job_id, None)

    async def _publish(self, sketch: Sketch) -> None:
        channels = list(self.watched.get(sketch.job_id, ()))
        if not channels:
            return
        data = await asyncio.to_thread(encode_image, sketch.pixels, FORMAT, QUALITY)
        height, width, _ = sketch.pixels.shape
        preview = Preview(
            job_id=sketch.job_id,
            index=sketch.index,
            seed=sketch.seed,
            step=sketch.step,
            steps=sketch.steps,
            width=width,
            height=height,
            format=FORMAT,
            b64=base64.b64encode(data).decode(),
        )
        for channel in channels:
            await self._queue.publish_preview(preview, channel)
