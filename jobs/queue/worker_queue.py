"""The queue of one model as its workers see it: claim tasks, keep their leases, commit each image exactly once."""

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from jobs.clock import steady_time
from jobs.models import (
    LONGEST_WAIT_S,
    FailureReason,
    ImageResult,
    ImageTask,
    JobState,
    Preview,
    PreviewSubscription,
    UnreadableRecordError,
)
from jobs.queue.claims import Claim, Settled
from jobs.queue.clients.subscription import subscribed
from jobs.queue.connection import SOCKET_TIMEOUT_S
from jobs.queue.job_hash import read_job
from jobs.queue.keys import WORKER_GROUP, ModelKeys
from jobs.queue.model_registry import ModelRegistry
from jobs.queue.pictures.sources import read_sources
from jobs.queue.scripts import longest_life_ms, milliseconds, register_script
from jobs.queue.task_records import failure_records, outcome_of, place_of, shifted

log = logging.getLogger(__name__)

UNREADABLE_TTL_S = 3600.0
"""For how long a job is kept that ended with a task which cannot be read."""

PASSED_ON_IDLE_MS = 24 * 3600 * 1000
"""Longer than any lease."""


class WorkerQueue:
    """Client of one model's queue for a worker, which announces itself in the `registry`.

    All methods raise redis.exceptions.RedisError when Redis is away.
    """

    def __init__(self, redis: Redis, model: str) -> None:
        self.model = model
        self.registry = ModelRegistry(redis, model)
        self._redis: Any = redis  # redis-py types every answer as bytes | str; ours are bytes
        self._keys = ModelKeys(model)
        self.buried: Callable[[int], None] = lambda images: None
        """Called with the number of images that were given up because their task cannot be read."""
        self._ahead, self._compared_at = 0.0, float("-inf")
        self._settle = register_script(redis, "end_of_job", "pace", "settle")
        # A failure is small, and its task leaves the stream: Redis stores it also when it has no memory left.
        self._settle_failure = register_script(redis, "end_of_job", "pace", "settle", allow_oom=True)
        self._requeue = register_script(redis, "requeue")
        self._take_over = register_script(redis, "take_over")
        self._begin = register_script(redis, "begin")
        self._adopt = register_script(redis, "adopt")

    async def claim(self, worker_id: str, count: int, block_s: float) -> list[Claim]:
        """Take up to `count` waiting tasks, oldest first; wait at most `block_s` (0 to 4 seconds) for the first."""
        if not 0 <= block_s < SOCKET_TIMEOUT_S - 0.5:
            raise ValueError(f"block_s must be below {SOCKET_TIMEOUT_S - 0.5} seconds, got {block_s}")
        block_ms = milliseconds(block_s) if block_s else None
        try:
            streams = await self._read_group(worker_id, count, block_ms)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._create_group()  # first worker of this model, or a Redis that came back empty
            streams = await self._read_group(worker_id, count, block_ms)
        return await self._readable(
            (entry_id, fields, 1, None) for _, entries in streams or [] for entry_id, fields in entries
        )

    async def reclaim(self, worker_id: str, idle_s: float, count: int) -> list[Claim]:
        """Take up to `count` tasks that nobody renewed for `idle_s` seconds, and whose worker's lease is gone.

        Also the worker's own, which it was given in an answer that it never received.
        """
        try:
            taken = await self._take_over(
                keys=[self._keys.tasks], args=[WORKER_GROUP, worker_id, milliseconds(idle_s), count, self._keys.leases]
            )
        except ResponseError as error:
            if "NOGROUP" in str(error):
                return []
            raise
        return await self._readable(
            (entry_id, dict(zip(fields[::2], fields[1::2], strict=True)), deliveries, owner.decode())
            for entry_id, fields, deliveries, owner in taken
        )

    async def begin(self, claim: Claim) -> int:
        """Count an attempt at a suspect task, before it begins: the attempts so far; 0 when its job is gone."""
        return int(await self._begin(keys=[self._keys.job(claim.task.job_id)], args=[claim.task.index]))

    async def renew(self, worker_id: str, claims: Sequence[Claim]) -> list[Claim]:
        """Keep the leases of `claims` for another lease time; returns those whose image is settled already."""
        if not claims:
            return []
        entry_ids = [claim.entry_id for claim in claims]
        kept = set(await self._redis.xclaim(self._keys.tasks, WORKER_GROUP, worker_id, 0, entry_ids, justid=True))
        return [claim for claim in claims if claim.entry_id.encode() not in kept]

    async def outcomes(self, claims: Sequence[Claim]) -> list[str]:
        """The outcome of each image of claims that others have settled: a failure's reason, else ``duplicate``."""
        fields = [(claim.task.job_id, f"image:{index}") for claim in claims for index in claim.task.indices]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for job_id, field in fields:
                pipeline.hget(self._keys.job(job_id), field)
            return [outcome_of(record) for record in await pipeline.execute()]

    async def commit(self, claim: Claim, result: ImageResult, data: bytes, ttl_s: float) -> bool:
        """Store the image and its bytes for `ttl_s` seconds; False when it was settled before or its job is gone."""
        return (await self.commit_all(claim, [result], [data], ttl_s)).images == 1

    async def commit_all(
        self, claim: Claim, results: Sequence[ImageResult], data: Sequence[bytes] | None, ttl_s: float
    ) -> Settled:
        """Store all images of the claim's task and their bytes for `ttl_s` seconds, in one step.

        `data` is None for images whose bytes are kept elsewhere already.
        """
        files = [b""] * len(results) if data is None else data
        outcomes = [(result.index, result.to_record(), image) for result, image in zip(results, files, strict=True)]
        image_keys = [] if data is None else [self._keys.image(result.sha256, result.format) for result in results]
        return await self._settle_task(claim, "result", outcomes, ttl_s, image_keys, results[0].determinism.model_sha)

    async def fail(
        self, claim: Claim, reason: FailureReason, detail: str, ttl_s: float = 3600.0, transient: bool = False
    ) -> bool:
        """Settle the task's images as failed; clients are shown `detail`. Returns False as `commit` does."""
        failures = failure_records(claim.task.indices, reason, detail, transient)
        return (await self._settle_task(claim, "failure", failures, ttl_s)).images > 0

    async def bury(self, claim: Claim, detail: str, ttl_s: float) -> bool:
        """Settle the task's images as failed, and keep it as a dead letter. Returns False as `commit` does."""
        failures = failure_records(claim.task.indices, "error", detail)
        settled = await self._settle_task(claim, "failure", failures, ttl_s, [self._keys.dead_letters])
        return settled.images > 0

    async def requeue(self, claims: Sequence[Claim]) -> None:
        """Return unfinished tasks to the end of the queue, where any worker gets them at once."""
        if claims:
            jobs = [self._keys.job(claim.task.job_id) for claim in claims]
            entries = [(claim.entry_id, str(claim.task.index)) for claim in claims]
            await self._requeue(
                keys=[self._keys.tasks, self._keys.sets, *jobs], args=[WORKER_GROUP, *chain.from_iterable(entries)]
            )

    async def pass_on(self, claims: Sequence[Claim]) -> None:
        """Leave tasks to workers of another model; a suspect stays one, and waits to be taken over."""
        await self.requeue([claim for claim in claims if not claim.suspect])
        for claim in claims:
            if claim.suspect:
                about = {"idle": PASSED_ON_IDLE_MS, "retrycount": claim.deliveries, "justid": True}
                await self._redis.xclaim(self._keys.tasks, WORKER_GROUP, "passed-on", 0, [claim.entry_id], **about)

    async def adopt(self, claim: Claim, model_sha: str) -> bool:
        """Make the claim's job one of the model `model_sha`; False when images of its own model are made."""
        return bool(
            await self._adopt(keys=[self._keys.job(claim.task.job_id)], args=[claim.model_sha or "", model_sha])
        )

    async def job(self, job_id: str) -> JobState | None:
        """The job's state and results, or None when it is unknown or has expired."""
        return await read_job(self._redis, self.model, job_id)

    async def cancelled_jobs(self) -> AsyncIterator[str]:
        """Ids of jobs as they are cancelled from now on. Some may be missed: `renew` finds their images later."""
        async with subscribed(self._redis, self._keys.cancellations) as pubsub:
            async for message in pubsub.listen():
                yield message["data"].decode(errors="replace")

    async def preview_subscriptions(self) -> AsyncIterator[PreviewSubscription]:
        """Subscriptions to previews from now on; clients repeat theirs every few seconds."""
        async with subscribed(self._redis, self._keys.preview_subscriptions) as pubsub:
            async for message in pubsub.listen():
                try:
                    yield PreviewSubscription.from_record(message["data"])
                except UnreadableRecordError as error:
                    log.warning("a subscription to previews cannot be read", extra={"error": str(error)})

    async def publish_preview(self, preview: Preview, channel: str) -> None:
        """Send a preview to all that listen on the pub/sub `channel`; it is stored nowhere."""
        await self._redis.publish(channel, preview.to_record())

    async def _read_group(self, worker_id: str, count: int, block_ms: int | None) -> Any:
        return await self._redis.xreadgroup(WORKER_GROUP, worker_id, {self._keys.tasks: ">"}, count, block_ms)

    async def _create_group(self) -> None:
        try:
            await self._redis.xgroup_create(self._keys.tasks, WORKER_GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _readable(self, entries: Iterable[tuple[bytes, dict[bytes, bytes], int, str | None]]) -> list[Claim]:
        """The claims of (entry id, fields, deliveries, taken from); entries whose task cannot be read are buried."""
        entries = list(entries)
        ahead_s = await self._ahead_s() if entries else 0.0
        claims = []
        for entry_id, fields, deliveries, taken_from in entries:
            record = fields.get(b"task", b"")
            try:
                task = ImageTask.from_record(record)
                claims.append(Claim(entry_id.decode(), shifted(task, ahead_s), deliveries, taken_from))
            except UnreadableRecordError as error:
                await self._bury_unreadable(entry_id.decode(), record, str(error))
        async with self._redis.pipeline(transaction=False) as pipeline:
            for claim in claims:
                pipeline.hmget(self._keys.job(claim.task.job_id), f"attempts:{claim.task.index}", "model_sha")
            known = await pipeline.execute()
        sources = await read_sources(self._redis, self._keys, claims)
        return [
            replace(claim, attempts=int(attempts or 0), model_sha=sha.decode() if sha else None, source=source)
            for claim, (attempts, sha), source in zip(claims, known, sources, strict=True)
        ]

    async def _ahead_s(self) -> float:
        """The seconds by which this process's clock is ahead of that of Redis, read again after a second."""
        if time.monotonic() - self._compared_at > 1:
            seconds, microseconds = await self._redis.time()
            self._ahead, self._compared_at = steady_time() - seconds - microseconds / 1e6, time.monotonic()
        return self._ahead

    async def _bury_unreadable(self, entry_id: str, record: bytes, detail: str) -> None:
        job_id, indices = place_of(record)
        log.error("a task cannot be read: it is given up", extra={"job_id": job_id, "entry": entry_id, "error": detail})
        images, _, _ = await self._settle_failure(
            keys=[
                self._keys.tasks,
                self._keys.sets,
                self._keys.job(job_id),
                self._keys.throughput,
                self._keys.dead_letters,
            ],
            args=[
                WORKER_GROUP,
                entry_id,
                "failure",
                milliseconds(UNREADABLE_TTL_S),
                milliseconds(LONGEST_WAIT_S),
                record,
                "",
                *(part for failure in failure_records(indices, "error", detail) for part in failure),
            ],
        )
        self.buried(int(images))

    async def _settle_task(
        self,
        claim: Claim,
        kind: Literal["result", "failure"],
        outcomes: Sequence[tuple[int, str, bytes]],
        ttl_s: float,
        store_keys: Sequence[str] = (),
        model_sha: str = "",
    ) -> Settled:
        settle = self._settle if kind == "result" else self._settle_failure
        images, completed, key = await settle(
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
                milliseconds(ttl_s),
                longest_life_ms(claim.task, ttl_s),
                claim.task.to_record() if kind == "failure" else "",
                model_sha,
                *(part for outcome in outcomes for part in outcome),
            ],
        )
        if key:
            await self._redis.pexpire(key, milliseconds(ttl_s))
        return Settled(max(0, int(images)), int(completed), other_model=images < 0)
