"""Unfinished images for whoever is looking: wishes come in from Redis, small pictures go out; nobody else pays."""

import asyncio
import base64
import logging
import time
from contextlib import suppress

from redis.exceptions import RedisError

from jobs.models import ImageFormat, Preview, PreviewSubscription
from jobs.queue.worker_queue import WorkerQueue
from worker.engine.row import PreviewImage
from worker.image_bytes import encode_image

log = logging.getLogger(__name__)

WISH_S = 6.0
"""How long a wish lasts unless it is repeated."""

RESUBSCRIBE_PAUSE_S = 0.5
FORMAT: ImageFormat = "jpeg"
QUALITY = 80


class Previews:
    """Lives in the event loop; `watched` is read by the device thread too."""

    def __init__(self, queue: WorkerQueue) -> None:
        self.watched: dict[str, set[str]] = {}
        """The channels to tell, by job: empty when nobody looks at anything."""
        self._queue = queue
        self._until: dict[tuple[str, str], float] = {}
        self._sketches: asyncio.Queue[list[PreviewImage]] = asyncio.Queue()

    def show(self, decode_previews: list[PreviewImage]) -> None:
        """Publish `decode_previews` soon, in the order of the calls."""
        self._sketches.put_nowait(decode_previews)

    async def listen_for_subscriptions(self) -> None:
        while True:
            with suppress(RedisError, OSError):
                async for subscription in self._queue.preview_subscriptions():
                    self._grant(subscription)
            await asyncio.sleep(RESUBSCRIBE_PAUSE_S)

    async def publish_forever(self) -> None:
        while True:
            for sketch in await self._sketches.get():
                with suppress(RedisError, OSError):  # a preview that is late is worth nothing
                    await self._publish(sketch)

    def _grant(self, subscription: PreviewSubscription) -> None:
        self._until[subscription.job_id, subscription.channel] = time.monotonic() + WISH_S
        self.watched.setdefault(subscription.job_id, set()).add(subscription.channel)
        asyncio.get_running_loop().call_later(WISH_S + 0.01, self._expire, subscription)

    def _expire(self, subscription: PreviewSubscription) -> None:
        if self._until.get((subscription.job_id, subscription.channel), 0.0) > time.monotonic():
            return  # repeated since
        self._until.pop((subscription.job_id, subscription.channel), None)
        channels = self.watched.get(subscription.job_id, set())
        channels.discard(subscription.channel)
        if not channels:
            self.watched.pop(subscription.job_id, None)

    async def _publish(self, sketch: PreviewImage) -> None:
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
