"""A worker's dealings with a real Redis, in this process, with the engine on its own thread."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import torch
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from jobs.image_store import ImageStore
from jobs.metrics import WorkerMetrics
from jobs.models import ImageTask, JobState, ModelCard
from jobs.queue.claims import Claim
from jobs.queue.keys import ModelKeys
from jobs.settings import WorkerSettings
from jobs.testing.waiting import outcome, wait_until
from tests.task_queue import TaskQueue
from tests.worker.step_gate import StepGate
from tests.worker.tasks import image_task
from worker.consumer import Consumer
from worker.engine.engine import Engine
from worker.engine_process.device_thread import DeviceThread
from worker.model_folder.loading import LoadedModel
from worker.results import ResultWriter
from worker.startup import model_card
from worker.testing.local_engine import serve_here

LEASE_S = 0.6
"""For tests that wait for what a lease brings about. None may fail when the process stands still for longer."""

NEVER_S = 3600.0
"""The lease in all other tests: nothing is taken over and nothing renewed while they run."""


class WatchedDevice(DeviceThread):
    """Tells which calls it was `asked` for, by the names of their functions, before it comes to them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def call(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        self.asked.append(getattr(function, "__name__", ""))
        return super().call(function, *arguments)

    def call_soon(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        self.asked.append(getattr(function, "__name__", ""))
        return super().call_soon(function, *arguments)


class RunningWorker:
    """A worker in this process: `stop` asks it to end, `done` is its end. `gate` holds its steps back if asked to."""

    def __init__(
        self,
        redis: Redis,
        model: LoadedModel,
        max_batch: int = 4,
        *,
        worker_id: str = "w1",
        lease_s: float = NEVER_S,
        gated: bool = False,
        store: ImageStore | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        self.card: ModelCard = model_card(Engine(model, max_batch), WorkerSettings(max_batch=max_batch))
        self.queue = TaskQueue(redis, self.card.name)
        self.taken_over: list[Claim] = []
        self._record_what_is_taken_over()
        self.device = WatchedDevice()
        self.engine = Engine(model, max_batch)
        self.gate = StepGate(self.engine)
        if not gated:
            self.gate.open()
        metrics = WorkerMetrics(self.registry)
        result_writer = ResultWriter(
            self.queue, self.card, metrics, torch_version=torch.__version__, ttl_s=600, embed_recipe=True, store=store
        )
        self.client = serve_here(self.engine, self.card, self.device)
        self.consumer = Consumer(self.queue, worker_id, self.client, result_writer, metrics, lease_s)
        self.stop = asyncio.Event()
        self.done = asyncio.create_task(self.consumer.run(self.stop))

    @property
    def redelivered(self) -> list[Claim]:
        """Tasks taken over from others: a worker that stood still for longer than its lease takes its own back."""
        return [claim for claim in self.taken_over if claim.taken_from != self.consumer.worker_id]

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def images(self, end: str) -> float:
        return self.count("fourstep_images_total", outcome=end)

    async def ended(self) -> None:
        """Wait for its end; raises what ended it."""
        await outcome(self.done)

    def _record_what_is_taken_over(self) -> None:
        reclaim = self.queue.reclaim

        async def recorded(worker_id: str, idle_s: float, count: int) -> list[Claim]:
            claims = await reclaim(worker_id, idle_s, count)
            self.taken_over += claims
            return claims

        self.queue.reclaim = recorded  # type: ignore[method-assign]


@asynccontextmanager
async def running(redis: Redis, model: LoadedModel, max_batch: int = 4, **how: Any) -> AsyncIterator[RunningWorker]:
    worker = RunningWorker(redis, model, max_batch, **how)
    try:
        yield worker
        worker.gate.open()
        worker.stop.set()
        await worker.ended()
    finally:
        worker.gate.open()
        worker.done.cancel()
        worker.client.close()


def job(count: int, job_id: str = "job", **changes: object) -> list[ImageTask]:
    return [image_task("sun", seed=index, index=index, job_id=job_id, **changes) for index in range(count)]


async def settled(queue: TaskQueue, job_id: str) -> JobState:
    async def is_settled() -> bool:
        state = await queue.job(job_id)
        return state is not None and state.settled

    await wait_until(is_settled)
    state = await queue.job(job_id)
    assert state is not None
    return state


async def hears_cancellations(redis: Redis, worker: RunningWorker) -> None:
    """Wait until `worker` would hear that a job is cancelled."""
    channel = ModelKeys(worker.queue.model).cancellations

    async def subscribed() -> bool:
        ((_, listeners),) = await redis.pubsub_numsub(channel)
        return listeners > 0

    await wait_until(subscribed)
