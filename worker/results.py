"""Write outcomes to Redis: images are encoded, hashed and committed once."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from functools import partial

from jobs.clock import steady_time
from jobs.diversity import diversity_score, pack_layout
from jobs.image_store import ImageStore
from jobs.metrics import WorkerMetrics
from jobs.models import Determinism, ImageResult, ImageTask, ModelCard, Timings
from jobs.queue.claims import Claim
from jobs.queue.worker_queue import WorkerQueue
from jobs.tracing import record_image
from worker.engine.outcomes import Failure, FinishedSet, Outcome, Picture
from worker.image_bytes import encode_image, recipe
from worker.redis_retry import until_redis_answers

log = logging.getLogger(__name__)

ENCODER_THREADS = 2


@dataclass(eq=False)
class ResultWriter:
    """Encodes images in threads of its own and commits results, or failures, once.

    Results are kept in Redis for `ttl_s` seconds, and the images too unless there is a `store` for them. They name the
    engine's `torch_version`.
    """

    queue: WorkerQueue
    card: ModelCard
    metrics: WorkerMetrics
    _: KW_ONLY
    torch_version: str
    ttl_s: float
    embed_recipe: bool
    mark_generated: bool = True
    store: ImageStore | None = None

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(ENCODER_THREADS, thread_name_prefix="image-bytes")

    async def settle(self, claim: Claim, outcome: Outcome) -> None:
        """Commit the pictures, or the failure; waits for as long as Redis is away."""
        if isinstance(outcome, Failure):
            settled = await self._fail(claim, outcome)
        else:
            settled = await self._commit(claim, outcome.pictures if isinstance(outcome, FinishedSet) else [outcome])
        if settled != "passed on":
            self.metrics.images.labels(settled).inc(len(claim.task.indices))
        about = {"job_id": claim.task.job_id, "index": claim.task.index, "entry": claim.entry_id, "outcome": settled}
        log.info("image", extra=about)

    async def _commit(self, claim: Claim, pictures: Sequence[Picture]) -> str:
        for picture in pictures:
            self.metrics.queue_time.observe(picture.seconds["queue"])
        images = [
            (claim.task.model_copy(update={"index": index, "seed": picture.seed}), picture)
            for index, picture in zip(claim.task.indices, pictures, strict=True)
        ]
        loop = asyncio.get_running_loop()
        try:
            encoded = await asyncio.gather(
                *(loop.run_in_executor(self._threads, self._encode, task, picture) for task, picture in images)
            )
        except Exception as error:
            about = {"job_id": claim.task.job_id}
            log.exception("the pixels of image %s could not be encoded", claim.entry_id, extra=about)
            return await self._fail(claim, Failure(claim.entry_id, "error", f"{type(error).__name__}: {error}"))
        results = [
            self._result(task, picture, hashlib.sha256(data).hexdigest(), seconds)
            for (task, picture), (data, seconds) in zip(images, encoded, strict=True)
        ]
        files = [data for data, _ in encoded]
        started = steady_time()
        await self._keep(results, files)
        in_redis = None if self.store else files
        settled = await until_redis_answers(lambda: self.queue.commit_all(claim, results, in_redis, self.ttl_s))
        stored = steady_time()
        self.metrics.stage_duration.labels("store").observe(stored - started)
        for (task, picture), (_, seconds) in zip(images, encoded, strict=True):
            stages = picture.stages | {"encode_image": (started - seconds, started), "store": (started, stored)}
            record_image(task.traceparent, stages, {"job_id": task.job_id, "seed": task.seed})
        if settled.other_model:
            await until_redis_answers(lambda: self.queue.pass_on([claim]))
            return "passed on"
        if settled.completed > 1:
            await self._score(claim.task.job_id)
        return "ok" if settled.images else "duplicate"

    async def _keep(self, results: Sequence[ImageResult], files: Sequence[bytes]) -> None:
        """Put the images into the store; waits for as long as it does not take them, since none is a result before."""
        if self.store:
            puts = [
                partial(self.store.put, result.sha256, result.format, data)
                for result, data in zip(results, files, strict=True)
            ]
            await asyncio.gather(*(until_redis_answers(put, "the image store") for put in puts))

    async def _score(self, job_id: str) -> None:
        """Count the diversity of a job that was just completed; its images may come from several workers."""
        state = await until_redis_answers(lambda: self.queue.job(job_id))
        if state and state.status == "completed":
            self.metrics.diversity_score.observe(diversity_score([result.layout for result in state.results]))

    async def _fail(self, claim: Claim, failure: Failure) -> str:
        first = await until_redis_answers(lambda: self.queue.fail(claim, failure.reason, failure.detail, self.ttl_s))
        return failure.reason if first else "duplicate"

    async def refuse(self, claim: Claim, detail: str) -> None:
        """Fail a task that this worker cannot make, though the same call may succeed when it is sent again."""
        fail = partial(self.queue.fail, claim, "error", detail, self.ttl_s, transient=True)
        first = await until_redis_answers(fail)
        self.metrics.images.labels("error" if first else "duplicate").inc(len(claim.task.indices))

    async def bury(self, claim: Claim, detail: str) -> None:
        """Fail a task that took down several workers, and keep it among the dead letters."""
        first = await until_redis_answers(lambda: self.queue.bury(claim, detail, self.ttl_s))
        self.metrics.images.labels("error" if first else "duplicate").inc(len(claim.task.indices))
        self.metrics.dead_letters.inc(first)

    def close(self) -> None:
        self._threads.shutdown()

    def _encode(self, task: ImageTask, picture: Picture) -> tuple[bytes, float]:
        started = time.perf_counter()
        about = recipe(task, self.card.sha256, self.card.steps, self.card.version) if self.embed_recipe else None
        data = encode_image(picture.pixels, task.format, task.quality, about, mark=self.mark_generated)
        seconds = time.perf_counter() - started
        self.metrics.stage_duration.labels("encode_image").observe(seconds)
        return data, seconds

    def _result(self, task: ImageTask, picture: Picture, sha256: str, encode_seconds: float) -> ImageResult:
        spent = picture.seconds
        return ImageResult(
            index=task.index,
            seed=task.seed,
            width=task.width,
            height=task.height,
            format=task.format,
            sha256=sha256,
            layout=pack_layout(picture.layout),
            timings=Timings(
                queue=spent["queue"],
                encode=spent["encode"],
                denoise=spent.get("denoise_step", 0.0),  # a picture that is to change by nothing takes no step
                decode=spent["decode"],
                encode_image=encode_seconds,
                total=steady_time() - task.created,
            ),
            determinism=Determinism(
                mode=task.mode,
                bucket=picture.bucket,
                device=self.card.settings.device,
                dtype=self.card.settings.dtype,
                torch=self.torch_version,
                model_sha=self.card.sha256,
            ),
            prompt_tokens=picture.prompt_tokens,
            negative_prompt_tokens=picture.negative_tokens,
            work_s=picture.work_s,
        )
