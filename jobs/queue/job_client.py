"""The queue of one model as its clients see it: admit a job, follow it, cancel it, read its images."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from jobs.models import (
    GivenUpReason,
    ImageFormat,
    ImageResult,
    ImageTask,
    JobState,
    PreviewSubscription,
    WebhookTarget,
)
from jobs.queue.admission import Admission, IdempotencyKey, RateLimit
from jobs.queue.job_hash import read_job
from jobs.queue.keys import WORKER_GROUP, ModelKeys
from jobs.queue.scripts import longest_life_ms, milliseconds, register_script

# Set by Redis, whose clock they are of.
TIMES = {"created", "deadline"}


class JobClient:
    """Client of one model's queue. All methods raise redis.exceptions.RedisError when Redis is away."""

    def __init__(self, redis: Redis, model: str) -> None:
        self.model = model
        self._redis: Any = redis  # redis-py types every answer as bytes | str; ours are bytes
        self._keys = ModelKeys(model)
        self._admit = register_script(redis, "count_images", "pace", "admit")
        self._cancel = register_script(redis, "end_of_job", "cancel", allow_oom=True)
        self._watch = register_script(redis, "watch")
        self._depth = register_script(redis, "count_images", "depth")

    async def admit(
        self,
        tasks: Sequence[ImageTask],
        max_queued_images: int,
        ttl_s: float,
        channel: str = "",
        *,
        idempotency_key: IdempotencyKey | None = None,
        rate: RateLimit | None = None,
        webhook: WebhookTarget | None = None,
    ) -> Admission:
        """Queue the images of one job, all or none, if no more than `max_queued_images` then wait unclaimed.

        The job is created when Redis admits it, by its clock; its deadline is as long after that as the tasks say.
        The job expires `ttl_s` seconds after its end, and `idempotency_key` with it; its events go to the pub/sub
        `channel`, and its end to the `webhook`. `idempotency_key` and `rate` are checked in the same atomic step; a
        refused call does not count for the rate.
        """
        record = self._keys.unused
        if idempotency_key:
            record = self._keys.idempotency(idempotency_key.client, idempotency_key.key)
        outcome, queued, named_job, remaining, wait_ms, created = await self._admit(
            keys=[
                self._keys.tasks,
                self._keys.job(tasks[0].job_id),
                record,
                self._keys.rate(rate.client) if rate else self._keys.unused,
                self._keys.throughput,
                self._keys.sets,
            ],
            args=[
                WORKER_GROUP,
                max_queued_images,
                longest_life_ms(tasks[0], ttl_s),
                "" if tasks[0].patience_s is None else tasks[0].patience_s,
                channel,
                idempotency_key.fingerprint if idempotency_key else "",
                rate.images_per_minute if rate else 0,
                webhook.to_record() if webhook else "",
                *(part for task in tasks for part in (len(task.indices), task.to_record(exclude=TIMES))),
            ],
        )
        return Admission(
            outcome=outcome.decode(),
            queued_images=int(queued),
            job_id=named_job.decode(),
            remaining_images=int(remaining) if rate else None,
            wait_s=wait_ms / 1000,
            created=float(created) if created else None,
        )

    async def cancel(
        self, job_id: str, detail: str, reason: GivenUpReason = "cancelled", ttl_s: float = 3600.0
    ) -> int | None:
        """Cancel every image of the job that is not settled, waiting or running, in one step.

        Returns how many images were cancelled, None for an unknown job. The job expires after `ttl_s` seconds.
        """
        cancelled = await self._cancel(
            keys=[self._keys.tasks, self._keys.sets, self._keys.job(job_id)],
            args=[WORKER_GROUP, job_id, reason, detail, milliseconds(ttl_s), self._keys.cancellations],
        )
        return None if cancelled < 0 else int(cancelled)

    async def watch(self, job_id: str, channel: str) -> None:
        """Have the job's events sent to the pub/sub `channel` too."""
        await self._watch(keys=[self._keys.job(job_id)], args=[channel])

    async def subscribe_to_previews(self, subscription: PreviewSubscription) -> None:
        """Ask the workers for the previews of a job, which may not be admitted yet."""
        await self._redis.publish(self._keys.preview_subscriptions, subscription.to_record())

    async def job(self, job_id: str) -> JobState | None:
        """The job's state and results, or None when it is unknown or has expired."""
        return await read_job(self._redis, self.model, job_id)

    async def image(self, sha256: str, image_format: ImageFormat) -> bytes | None:
        """The bytes of a committed image, or None when it is unknown or has expired."""
        return await self._redis.get(self._keys.image(sha256, image_format))

    async def images(self, results: Sequence[ImageResult]) -> list[bytes | None]:
        """The bytes of several committed images in one round trip."""
        return await self._redis.mget([self._keys.image(result.sha256, result.format) for result in results])

    async def depth(self) -> tuple[int, int]:
        """(images waiting for a worker, images held by workers)."""
        try:
            waiting, held = await self._depth(keys=[self._keys.tasks, self._keys.sets], args=[WORKER_GROUP])
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            return 0, 0  # no stream, or no group yet
        return int(waiting), int(held)
