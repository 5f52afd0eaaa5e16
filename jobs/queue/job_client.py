"""The queue of one model as its clients see it: admit a job, follow it, cancel it, read its images."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from jobs.image_store import ImageStore
from jobs.models import (
    GivenUpReason,
    ImageFormat,
    ImageResult,
    ImageTask,
    JobState,
    PreviewSubscription,
    WebhookTarget,
)
from jobs.queue.admission import PROMISES_A_JOB, Admission, IdempotencyKey, RateLimit
from jobs.queue.callers.call_keys import CallKeys
from jobs.queue.callers.rates import Rates
from jobs.queue.job_hash import read_job
from jobs.queue.keys import WORKER_GROUP, ModelKeys, call_key
from jobs.queue.replicas import Replicas
from jobs.queue.scripts import longest_life_ms, milliseconds, register_script

# Set by Redis, whose clock they are of.
TIMES = {"created", "deadline"}
MOVED_PAUSE_S = 0.1


class JobClient:
    """Client of one model's queue. All methods raise redis.exceptions.RedisError when Redis is away.

    Images that Redis does not have are looked for in the `store`, if there is one; then ImageStoreError is raised too.
    A job is admitted when the `replicas` have it, if any must.
    """

    def __init__(
        self, redis: Redis, model: str, store: ImageStore | None = None, replicas: Replicas | None = None
    ) -> None:
        self._store, self._replicas = store, replicas
        self.model = model
        self._redis: Any = redis  # redis-py types every answer as bytes | str; ours are bytes
        self._keys = ModelKeys(model)
        self._call_keys, self._rates = CallKeys(redis), Rates(redis)
        self._admit = register_script(redis, "count_images", "pace", "job_of_key", "admit")
        self._cancel = register_script(redis, "end_of_job", "cancel", allow_oom=True)
        self._expire = register_script(redis, "end_of_job", "expire", allow_oom=True)
        self._watch = register_script(redis, "watch")
        self._depth = register_script(redis, "count_images", "depth")

    async def admit(
        self,
        tasks: Sequence[ImageTask],
        max_queued_images: int,
        ttl_s: float,
        channel: str = "",
        *,
        model_sha: str = "",
        client: str = "",
        idempotency_key: IdempotencyKey | None = None,
        rate: RateLimit | None = None,
        webhook: WebhookTarget | None = None,
        inputs: Mapping[str, bytes] = MappingProxyType({}),
    ) -> Admission:
        """Queue the images of one job, all or none, if no more than `max_queued_images` then wait unclaimed.

        The job is created when Redis admits it, by its clock; its deadline is as long after that as the tasks say.
        The job expires `ttl_s` seconds after its end, and `idempotency_key` with it; its events go to the pub/sub
        `channel`, and its end to the `webhook`. All its images are of the model with the hash `model_sha`; `client` is
        the hash of whom it belongs to. A refused call does not count for the rate. `inputs` are the pictures that the
        tasks name, by the hash of their bytes; they are kept for as long as the job needs them.
        """
        life_ms, job_id = longest_life_ms(tasks[0], ttl_s), tasks[0].job_id
        try:
            while True:
                if idempotency_key and (earlier := await self._call_keys.find(idempotency_key, self.model, life_ms)):
                    admission = earlier
                elif rate and (refusal := await self._rates.charge(rate, job_id)):
                    return refusal
                else:
                    conditions = (model_sha, client, idempotency_key, webhook, inputs)
                    try:
                        admission = await self._queue_all(tasks, max_queued_images, life_ms, channel, *conditions)
                    except OutOfMemoryError:
                        admission = Admission("store-full", 0, job_id)
                    if rate and not admission.ok:
                        await self._rates.refund(rate, job_id)
                if admission.outcome != "moved":
                    return await self._on_replicas(admission, rate, ttl_s)
                await asyncio.sleep(MOVED_PAUSE_S)
        except OutOfMemoryError:
            return Admission("store-full", 0, job_id)

    async def foreseen(
        self,
        tasks: Sequence[ImageTask],
        max_queued_images: int,
        *,
        idempotency_key: IdempotencyKey | None = None,
        rate: RateLimit | None = None,
    ) -> Admission | None:
        """The outcome of `admit`, if it is that of an earlier call or a refusal as things are; None if it may succeed.

        Nothing is queued, charged or kept. It costs little, so that a call can be refused before it is worked on.
        """
        if idempotency_key and (earlier := await self._call_keys.look_up(idempotency_key, self.model)):
            return await self._on_replicas(earlier)
        if rate and (refusal := await self._rates.charge(rate, "")):
            return refusal
        admission = await self._queue_all(tasks, max_queued_images, 0, "", "", "", None, None, only_told=True)
        return None if admission.ok else admission

    async def _on_replicas(self, admission: Admission, rate: RateLimit | None = None, ttl_s: float = 0.0) -> Admission:
        """The admission when the replicas have its job; else a new job is cancelled, and does not count for the rate.

        An earlier job goes on, since another call may have been promised it.
        """
        if self._replicas is None or admission.outcome not in PROMISES_A_JOB:
            return admission
        if await self._replicas.have(ModelKeys(admission.model).job(admission.job_id)):
            return admission
        if admission.ok:
            # The caller is refused: a webhook would be about a job that it never heard of.
            await self._redis.hdel(ModelKeys(admission.model).job(admission.job_id), "webhook")
            await self.cancel(admission.job_id, "too few replicas of Redis had the job", ttl_s=ttl_s)
            if rate:
                await self._rates.refund(rate, admission.job_id)
        return replace(admission, outcome="unreplicated")

    async def _queue_all(
        self,
        tasks: Sequence[ImageTask],
        max_queued_images: int,
        life_ms: int,
        channel: str,
        model_sha: str,
        client: str,
        key: IdempotencyKey | None,
        webhook: WebhookTarget | None,
        inputs: Mapping[str, bytes] = MappingProxyType({}),
        only_told: bool = False,
    ) -> Admission:
        outcome, queued, named_job, wait_ms, created = await self._admit(
            keys=[
                self._keys.tasks,
                self._keys.job(tasks[0].job_id),
                self._keys.idempotency(key.client, key.key) if key else self._keys.unused,
                self._keys.throughput,
                self._keys.sets,
                *map(self._keys.input, inputs),
            ],
            args=[
                WORKER_GROUP,
                max_queued_images,
                life_ms,
                "" if tasks[0].patience_s is None else tasks[0].patience_s,
                channel,
                key.fingerprint if key else "",
                call_key(key.client, key.key) if key else "",
                model_sha,
                client,
                webhook.to_record() if webhook else "",
                "1" if only_told else "",
                *inputs.values(),
                *(part for task in tasks for part in (len(task.indices), task.to_record(exclude=TIMES))),
            ],
        )
        return Admission(
            outcome=outcome.decode(),
            queued_images=int(queued),
            job_id=named_job.decode(),
            model=self.model,
            wait_s=wait_ms / 1000,
            created=float(created) if created else None,
        )

    async def cancel(
        self, job_id: str, detail: str, reason: GivenUpReason = "cancelled", ttl_s: float = 3600.0
    ) -> int | None:
        """Cancel every image of the job that is not settled, waiting or running, in one step.

        Returns how many images were cancelled, None for an unknown job. The job expires after `ttl_s` seconds.
        """
        cancelled, key = await self._cancel(
            keys=[self._keys.tasks, self._keys.sets, self._keys.job(job_id)],
            args=[WORKER_GROUP, job_id, reason, detail, milliseconds(ttl_s), self._keys.cancellations],
        )
        if key:
            await self._redis.pexpire(key, milliseconds(ttl_s))
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
        data = await self._redis.get(self._keys.image(sha256, image_format))
        return await self._store.get(sha256, image_format) if data is None and self._store else data

    async def image_heads(self, results: Sequence[ImageResult], head_bytes: int) -> list[tuple[int, bytes]]:
        """Return the length in bytes and the first `head_bytes` of several committed images, in one round trip.

        An image that has expired has no bytes.
        """
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in (self._keys.image(result.sha256, result.format) for result in results):
                pipeline.strlen(key)
                pipeline.getrange(key, 0, head_bytes - 1)
            answers = await pipeline.execute()
        heads = list(zip(answers[::2], answers[1::2], strict=True))
        return await asyncio.gather(
            *(self._in_store(result, head, head_bytes) for result, head in zip(results, heads, strict=True))
        )

    async def _in_store(self, result: ImageResult, head: tuple[int, bytes], head_bytes: int) -> tuple[int, bytes]:
        """The `head` of an image as Redis has it, or else as the store has it."""
        if head[0] or self._store is None:
            return head
        return await self._store.head(result.sha256, result.format, head_bytes)

    async def image_head(self, sha256: str, image_format: ImageFormat, head_bytes: int) -> tuple[int, bytes]:
        """Length in bytes and the first `head_bytes` of a committed image; 0 for one that is unknown or expired."""
        key = self._keys.image(sha256, image_format)
        head = await self._redis.getrange(key, 0, head_bytes - 1) if head_bytes else b""
        size = len(head) if len(head) < head_bytes else await self._redis.strlen(key)
        if not size and self._store:
            return await self._store.head(sha256, image_format, head_bytes)
        return size, head

    async def image_part(self, sha256: str, image_format: ImageFormat, start: int, end: int) -> bytes:
        """The bytes of a committed image from `start` to before `end`; fewer when it is shorter or has expired."""
        part = await self._redis.getrange(self._keys.image(sha256, image_format), start, end - 1)
        return part or (await self._store.part(sha256, image_format, start, end) if self._store else b"")

    async def expire_overdue(self, ttl_s: float) -> int:
        """Settle the waiting images whose deadline has passed as expired; returns their number.

        Workers do so themselves with what they hold. A job that ends so expires after `ttl_s` seconds.
        """
        expired, position = 0, "-"
        while position:
            count, position = await self._expire(
                keys=[self._keys.tasks, self._keys.sets], args=[WORKER_GROUP, milliseconds(ttl_s), position]
            )
            expired += count
        return expired

    async def depth(self) -> tuple[int, int]:
        """(images waiting for a worker, images held by workers)."""
        try:
            waiting, held = await self._depth(keys=[self._keys.tasks, self._keys.sets], args=[WORKER_GROUP])
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            return 0, 0  # no stream, or no group yet
        return int(waiting), int(held)
