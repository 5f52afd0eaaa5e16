"""Publish previews of unfinished images on the Redis channels that subscribed to them."""

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from redis.exceptions import RedisError

from jobs.models import ImageFormat, Preview, PreviewSubscription
from jobs.queue.worker_queue import WorkerQueue
from worker.engine.outcomes import PreviewImage
from worker.image_bytes import encode_image

log = logging.getLogger(__name__)

SUBSCRIPTION_S = 6.0
"""How long a subscription lasts unless it is repeated."""

RESUBSCRIBE_PAUSE_S = 0.5

MOST_WAITING = 16
"""Steps whose previews wait to be published; later ones are left out while Redis is slow."""

FORMAT: ImageFormat = "jpeg"
QUALITY = 80


class Previews:
    """Keeps subscriptions and publishes previews. It calls `watch` with all subscribed jobs when these change."""

    def __init__(self, queue: WorkerQueue, watch: Callable[[Collection[str]], None]) -> None:
        self._queue = queue
        self._watch = watch
        self._channels: dict[str, set[str]] = {}
        """Subscribed channels by job."""
        self._until: dict[tuple[str, str], float] = {}
        self._waiting: asyncio.Queue[list[PreviewImage]] = asyncio.Queue()

    def show(self, previews: list[PreviewImage]) -> None:
        """Publish `previews` soon, in the order of the calls; none when many wait already."""
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put_nowait(previews)

    async def listen_for_subscriptions(self) -> None:
        while True:
            with suppress(RedisError, OSError):
                async for subscription in self._queue.preview_subscriptions():
                    self._grant(subscription)
            await asyncio.sleep(RESUBSCRIBE_PAUSE_S)

    async def publish_forever(self) -> None:
        while True:
            for image in await self._waiting.get():
                try:
                    await self._publish(image)
                except (RedisError, OSError):
                    pass  # a preview that is late is worth nothing
                except Exception:
                    log.exception("a preview could not be published", extra={"job_id": image.job_id})

    def _grant(self, subscription: PreviewSubscription) -> None:
        self._until[subscription.job_id, subscription.channel] = time.monotonic() + SUBSCRIPTION_S
        if subscription.job_id not in self._channels:
            self._channels[subscription.job_id] = set()
            self._watch(self._channels)
        self._channels[subscription.job_id].add(subscription.channel)
        asyncio.get_running_loop().call_later(SUBSCRIPTION_S + 0.01, self._expire, subscription)

    def _expire(self, subscription: PreviewSubscription) -> None:
        if self._until.get((subscription.job_id, subscription.channel), 0.0) > time.monotonic():
            return  # repeated since
        self._until.pop((subscription.job_id, subscription.channel), None)
        channels = self._channels.get(subscription.job_id, set())
        channels.discard(subscription.channel)
        if not channels and self._channels.pop(subscription.job_id, None) is not None:
            self._watch(self._channels)

    async def _publish(self, image: PreviewImage) -> None:
        channels = list(self._channels.get(image.job_id, ()))
        if not channels:
            return
        data = await asyncio.to_thread(encode_image, image.pixels, FORMAT, QUALITY)
        height, width, _ = image.pixels.shape
        preview = Preview(
            job_id=image.job_id,
            index=image.index,
            seed=image.seed,
            step=image.step,
            steps=image.steps,
            width=width,
            height=height,
            format=FORMAT,
            b64=base64.b64encode(data).decode(),
        )
        for channel in channels:
            await self._queue.publish_preview(preview, channel)
