"""The queue of one model: admission, claims, leases, and results committed exactly once."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from jobs.models import (
    FailureReason,
    GivenUpReason,
    ImageFailure,
    ImageFormat,
    ImageResult,
    ImageTask,
    JobState,
    ModelCard,
    Preview,
    PreviewSubscription,
    WorkerLease,
)
from jobs.queue.admission import Admission, IdempotencyKey, RateLimit
from jobs.queue.connection import SOCKET_TIMEOUT_S
from jobs.queue.job_hash import read_job
from jobs.queue.keys import KNOWN_MODELS, WORKER_GROUP, ModelKeys

LUA_DIR = Path(__file__).parent / "lua"
CARD_TTL_S = 24 * 3600.0


@dataclass(frozen=True)
class Claim:
    """A task leased to this worker; ``deliveries`` counts how often it has been handed to any worker."""

    entry_id: str
    task: ImageTask
    deliveries: int


@dataclass(frozen=True)
class Settled:
    """What a task's end changed: `images` of its job were settled now, none of them before.

    `completed` is the number of all images of the job if it is complete with these, else 0.
    """

    images: int
    completed: int


class TaskQueue:
    """Queue client of one model. All methods raise redis.exceptions.RedisError when Redis is away."""

    def __init__(self, redis: Redis, model: str) -> None:
        self.model = model
        self._redis: Any = redis  # redis-py types every answer as bytes | str; ours are bytes
        self._keys = ModelKeys(model)
        self._admit = redis.register_script(_script("count_images", "admit"))
        self._depth = redis.register_script(_script("count_images", "depth"))
        self._watch = redis.register_script(_script("watch"))
        self._settle = redis.register_script(_script("end_of_job", "settle"))
        # A failure is small, and its task leaves the stream: told also when Redis has no memory left.
        self._settle_failure = redis.register_script("#!lua flags=allow-oom\n" + _script("end_of_job", "settle"))
        self._cancel = redis.register_script("#!lua flags=allow-oom\n" + _script("end_of_job", "cancel"))
        self._requeue = redis.register_script(_script("requeue"))
        self._announce = redis.register_script(_script("announce"))
        self._register_model = redis.register_script(_script("register_model"))

    async def admit(
        self,
        tasks: Sequence[ImageTask],
        max_queued_images: int,
        ttl_s: float,
        channel: str = "",
        *,
        idempotency_key: IdempotencyKey | None = None,
        rate: RateLimit | None = None,
    ) -> Admission:
        """Queue the images of one job, all or none, if no more than `max_queued_images` then wait unclaimed.

        The job is forgotten `ttl_s` seconds after its end, and `idempotency_key` with it; its events go to the pub/sub
        `channel`. `idempotency_key` and `rate` are checked in the same atomic step; what is refused does not count for
        the rate.
        """
        job_id, created = tasks[0].job_id, tasks[0].created
        outcome, queued, named_job, remaining, wait_ms = await self._admit(
            keys=[
                self._keys.tasks,
                self._keys.job(job_id),
                self._keys.idempotency(idempotency_key.client, idempotency_key.key)
                if idempotency_key
                else self._keys.unused,
                self._keys.rate(rate.client) if rate else self._keys.unused,
                self._keys.throughput,
                self._keys.sets,
            ],
            args=[
                WORKER_GROUP,
                max_queued_images,
                _milliseconds(_lifetime_s(tasks[0], ttl_s)),
                created,
                channel,
                idempotency_key.fingerprint if idempotency_key else "",
                rate.images_per_minute if rate else 0,
                *(part for task in tasks for part in (len(task.indices), task.model_dump_json())),
            ],
        )
        return Admission(
            outcome=outcome.decode(),
            queued_images=int(queued),
            job_id=named_job.decode(),
            remaining_images=int(remaining) if rate else None,
            wait_s=wait_ms / 1000,
        )

    async def claim(self, worker_id: str, count: int, block_s: float) -> list[Claim]:
        """Take up to `count` waiting tasks, oldest first; wait at most `block_s` (0 to 4 seconds) for the first."""
        if not 0 <= block_s < SOCKET_TIMEOUT_S - 0.5:
            raise ValueError(f"block_s must be below {SOCKET_TIMEOUT_S - 0.5} seconds, got {block_s}")
        block_ms = _milliseconds(block_s) if block_s else None
        try:
            streams = await self._read_group(worker_id, count, block_ms)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._create_group()  # first worker of this model, or a Redis that came back empty
            streams = await self._read_group(worker_id, count, block_ms)
        return [
            Claim(entry_id.decode(), _task(fields), deliveries=1)
            for _, entries in streams or []
            for entry_id, fields in entries
        ]

    async def reclaim(self, worker_id: str, idle_s: float, count: int) -> list[Claim]:
        """Take up to `count` tasks whose lease nobody renewed for `idle_s` seconds."""
        taken: list[tuple[bytes, dict[bytes, bytes]]] = []
        cursor: str | bytes = "0-0"
        try:
            while len(taken) < count:
                cursor, entries, _ = await self._redis.xautoclaim(
                    self._keys.tasks, WORKER_GROUP, worker_id, _milliseconds(idle_s), cursor, count - len(taken)
                )
                taken += entries
                if cursor == b"0-0":
                    break
        except ResponseError as error:
            if str(error).startswith("NOGROUP"):
                return []
            raise
        deliveries = await self._deliveries([entry_id for entry_id, _ in taken])
        return [
            Claim(entry_id.decode(), _task(fields), times)
            for (entry_id, fields), times in zip(taken, deliveries, strict=True)
        ]

    async def renew(self, worker_id: str, claims: Sequence[Claim]) -> list[Claim]:
        """Keep the leases of `claims` for another lease time; returns those whose image is settled already."""
        if not claims:
            return []
        entry_ids = [claim.entry_id for claim in claims]
        kept = set(await self._redis.xclaim(self._keys.tasks, WORKER_GROUP, worker_id, 0, entry_ids, justid=True))
        return [claim for claim in claims if claim.entry_id.encode() not in kept]

    async def commit(self, claim: Claim, result: ImageResult, data: bytes, ttl_s: float) -> bool:
        """Store the image and its bytes for `ttl_s` seconds; False when it was settled before or its job is gone."""
        return (await self.commit_all(claim, [result], [data], ttl_s)).images == 1

    async def commit_all(
        self, claim: Claim, results: Sequence[ImageResult], data: Sequence[bytes], ttl_s: float
    ) -> Settled:
        """Store all images of the claim's task and their bytes for `ttl_s` seconds, in one step."""
        outcomes = [
            (result.index, result.model_dump_json(), image) for result, image in zip(results, data, strict=True)
        ]
        image_keys = [self._keys.image(result.sha256, result.format) for result in results]
        return await self._settle_task(claim, "result", outcomes, ttl_s, image_keys)

    async def fail(self, claim: Claim, reason: FailureReason, detail: str, ttl_s: float = 3600.0) -> bool:
        """Give the task's images up for good, `detail` being shown to the client; False as for `commit`."""
        failures = _failures(claim.task, reason, detail)
        return (await self._settle_task(claim, "failure", failures, ttl_s)).images > 0

    async def bury(self, claim: Claim, detail: str, ttl_s: float) -> bool:
        """Fail the task's images, and keep it as a dead letter; False as for `commit`."""
        failures = _failures(claim.task, "error", detail)
        settled = await self._settle_task(claim, "failure", failures, ttl_s, [self._keys.dead_letters])
        return settled.images > 0

    async def requeue(self, claims: Sequence[Claim]) -> None:
        """Return unfinished tasks to the end of the queue, where any worker gets them at once."""
        if claims:
            jobs = [self._keys.job(claim.task.job_id) for claim in claims]
            entries = [(claim.entry_id, str(claim.task.index), claim.task.model_dump_json()) for claim in claims]
            await self._requeue(
                keys=[self._keys.tasks, self._keys.sets, *jobs], args=[WORKER_GROUP, *chain.from_iterable(entries)]
            )

    async def cancel(
        self, job_id: str, detail: str, reason: GivenUpReason = "cancelled", ttl_s: float = 3600.0
    ) -> int | None:
        """Give up every unsettled image of the job at once, waiting or running; their number, None if unknown."""
        given_up = await self._cancel(
            keys=[self._keys.tasks, self._keys.sets, self._keys.job(job_id)],
            args=[WORKER_GROUP, job_id, reason, detail, _milliseconds(ttl_s), self._keys.cancellations],
        )
        return None if given_up < 0 else int(given_up)

    async def watch(self, job_id: str, channel: str) -> None:
        """Have the job's events sent to `channel` too."""
        await self._watch(keys=[self._keys.job(job_id)], args=[channel])

    async def cancelled_jobs(self) -> AsyncIterator[str]:
        """Ids of jobs as they are cancelled from now on. Some may be missed: `renew` tells of their images later."""
        async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(self._keys.cancellations)
            async for message in pubsub.listen():
                yield message["data"].decode()

    async def subscribe_to_previews(self, subscription: PreviewSubscription) -> None:
        """Ask the workers for the previews of a job, which may not be admitted yet."""
        await self._redis.publish(self._keys.preview_subscriptions, subscription.model_dump_json())

    async def preview_subscriptions(self) -> AsyncIterator[PreviewSubscription]:
        """Wishes as they come from now on; they are repeated for as long as somebody looks."""
        async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(self._keys.preview_subscriptions)
            async for message in pubsub.listen():
                yield PreviewSubscription.model_validate_json(message["data"])

    async def publish_preview(self, preview: Preview, channel: str) -> None:
        """Send a preview to whoever listens on `channel`; nothing keeps it."""
        await self._redis.publish(channel, preview.model_dump_json())

    async def announce(self, worker_id: str, card: ModelCard, ttl_s: float) -> None:
        """Say that this worker is warm and serves `card`; to be repeated within `ttl_s` seconds."""
        await self._announce(
            keys=[self._keys.card, self._keys.worker(worker_id), self._keys.workers],
            args=[card.model_dump_json(), _milliseconds(CARD_TTL_S), _milliseconds(ttl_s), worker_id],
        )
        await self._register_model(keys=[KNOWN_MODELS], args=[self.model])

    async def deregister(self, worker_id: str) -> None:
        """Take the worker's lease back; its card stays known."""
        await self._redis.delete(self._keys.worker(worker_id))
        await self._redis.srem(self._keys.workers, worker_id)

    async def known_workers(self) -> int:
        """How many workers have announced themselves, some of whom may be gone without a word; cheap."""
        return int(await self._redis.scard(self._keys.workers))

    async def workers(self) -> list[WorkerLease]:
        """The workers whose lease has not expired, by name."""
        worker_ids = [worker_id.decode() for worker_id in sorted(await self._redis.smembers(self._keys.workers))]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for worker_id in worker_ids:
                pipeline.get(self._keys.worker(worker_id))
                pipeline.pttl(self._keys.worker(worker_id))
            answers = await pipeline.execute()
        leases = []
        for worker_id, card_json, ttl_ms in zip(worker_ids, answers[::2], answers[1::2], strict=True):
            if card_json is None or ttl_ms < 0:
                await self._redis.srem(self._keys.workers, worker_id)
                continue
            card = ModelCard.model_validate_json(card_json)
            leases.append(WorkerLease(worker_id=worker_id, expires_in=ttl_ms / 1000, card=card))
        return leases

    async def card(self) -> ModelCard | None:
        """The card last announced, up to a day ago."""
        card_json = await self._redis.get(self._keys.card)
        return None if card_json is None else ModelCard.model_validate_json(card_json)

    async def depth(self) -> tuple[int, int]:
        """(images waiting for a worker, images held by workers)."""
        try:
            waiting, held = await self._depth(keys=[self._keys.tasks, self._keys.sets], args=[WORKER_GROUP])
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            return 0, 0  # no stream, or no group yet
        return int(waiting), int(held)

    async def job(self, job_id: str) -> JobState | None:
        """The job's state and results, or None when unknown or expired."""
        fields = await self._redis.hgetall(self._keys.job(job_id))
        if not fields:
            return None
        any_settled = any(name.startswith(b"image:") for name in fields)
        return read_job(job_id, self.model, fields, any_settled or await self._delivered(fields[b"entry:0"]))

    async def image(self, sha256: str, image_format: ImageFormat) -> bytes | None:
        """The bytes of a committed image, or None when unknown or expired."""
        return await self._redis.get(self._keys.image(sha256, image_format))

    async def images(self, results: Sequence[ImageResult]) -> list[bytes | None]:
        """The bytes of several committed images in one round trip."""
        return await self._redis.mget([self._keys.image(result.sha256, result.format) for result in results])

    async def _read_group(self, worker_id: str, count: int, block_ms: int | None) -> Any:
        return await self._redis.xreadgroup(WORKER_GROUP, worker_id, {self._keys.tasks: ">"}, count, block_ms)

    async def _create_group(self) -> None:
        try:
            await self._redis.xgroup_create(self._keys.tasks, WORKER_GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _deliveries(self, entry_ids: Sequence[bytes]) -> list[int]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for entry_id in entry_ids:
                pipeline.xpending_range(self._keys.tasks, WORKER_GROUP, entry_id, entry_id, 1)
            answers = await pipeline.execute()
        return [int(rows[0]["times_delivered"]) if rows else 1 for rows in answers]

    async def _delivered(self, entry_id: bytes) -> bool:
        groups = await self._redis.xinfo_groups(self._keys.tasks)
        return any(_stream_position(entry_id) <= _stream_position(group["last-delivered-id"]) for group in groups)

    async def _settle_task(
        self,
        claim: Claim,
        kind: Literal["result", "failure"],
        outcomes: Sequence[tuple[int, str, bytes]],
        ttl_s: float,
        store_keys: Sequence[str] = (),
    ) -> Settled:
        settle = self._settle if kind == "result" else self._settle_failure
        images, completed = await settle(
            keys=[
                self._keys.tasks,
                self._keys.sets,
                self._keys.job(claim.task.job_id),
                self._keys.throughput,
                *store_keys,
            ],
            args=[
                WORKER_GROUP,
                claim.entry_id,
                kind,
                _milliseconds(ttl_s),
                _milliseconds(_lifetime_s(claim.task, ttl_s)),
                claim.task.model_dump_json() if kind == "failure" else "",
                *(part for outcome in outcomes for part in outcome),
            ],
        )
        return Settled(int(images), int(completed))


async def known_models(redis: Redis) -> list[str]:
    """The names of all models ever announced on this Redis, sorted."""
    client: Any = redis
    return sorted(name.decode() for name in await client.smembers(KNOWN_MODELS))


def _script(*parts: str) -> str:
    return "".join((LUA_DIR / f"{part}.lua").read_text() for part in parts)


def _failures(task: ImageTask, reason: FailureReason, detail: str) -> list[tuple[int, str, bytes]]:
    failures = [ImageFailure(index=index, reason=reason, detail=detail) for index in task.indices]
    return [(failure.index, failure.model_dump_json(), b"") for failure in failures]


def _task(fields: dict[bytes, bytes]) -> ImageTask:
    return ImageTask.model_validate_json(fields[b"task"])


def _lifetime_s(task: ImageTask, ttl_s: float) -> float:
    """`ttl_s` from the end of the job, which may come as late as its deadline: nothing of it is forgotten before."""
    return ttl_s + max(0.0, (task.deadline or 0.0) - time.time())


def _stream_position(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
