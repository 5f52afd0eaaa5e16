"""Ten thousand images through a real Redis and a whole worker, some cancelled, some expired: `make soak`.

The model is the tests' tiny one with random weights and four image sizes, or that of `--model`. Says whether every
image was accounted for, and by how much the process grew.
"""

import asyncio
import random
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from statistics import linear_regression

import psutil
import torch
import typer
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from rich.progress import Progress
from transformers.utils import logging as transformers_logging

from bench import results_file
from jobs.metrics import WorkerMetrics
from jobs.models import ImageTask, JobState
from jobs.queue.claims import Claim
from jobs.queue.connection import open_redis
from jobs.queue.job_client import JobClient
from jobs.queue.worker_queue import WorkerQueue
from jobs.settings import WorkerSettings
from jobs.testing import redis_servers
from worker.consumer import Consumer
from worker.engine.engine import Engine
from worker.engine_process.device_thread import DeviceThread
from worker.model_folder.loading import load, served
from worker.results import ResultWriter
from worker.startup import model_card
from worker.testing import tiny_pipelines
from worker.testing.local_engine import serve_here

SIZES = [(64, 64), (32, 64), (64, 32), (32, 32)]
PROMPTS = ["a red cat", "sad big dog", "sun", "heart", "small blue face", "a smiling sun", "green", ""]
CLIENTS = 24
MAX_BATCH = 8
TTL_S = 3600.0


class CountingQueue(WorkerQueue):
    """Counts the images that it hands to the worker."""

    claimed = 0

    async def claim(self, worker_id: str, count: int, block_s: float) -> list[Claim]:
        claims = await super().claim(worker_id, count, block_s)
        self.claimed += len(claims)
        return claims


class Soak:
    """Clients, their jobs and outcomes, in one process with the worker."""

    def __init__(self, redis: Redis, images: int, seed: int, folder: str = "") -> None:
        torch.set_flush_denormal(True)
        transformers_logging.set_verbosity_error()
        if folder:
            model = load(folder)
        else:
            model = served("soak", "ab" * 32, tiny_pipelines.contract(sizes=SIZES), tiny_pipelines.build())
        self.engine = Engine(model, MAX_BATCH)
        self.engine.warm_up()
        self.card = model_card(self.engine, WorkerSettings(max_batch=MAX_BATCH))
        self.queue = CountingQueue(redis, self.card.name)
        self.client = JobClient(redis, self.card.name)
        self.registry = CollectorRegistry()
        self.images = images
        self.admitted = 0
        self.settled: Counter[str] = Counter()
        self.memory: list[tuple[int, float]] = []
        self._dice = random.Random(seed)

    async def run(self) -> None:
        """Serve the clients until all images are settled."""
        engine, stop = serve_here(self.engine, self.card, DeviceThread()), asyncio.Event()
        metrics = WorkerMetrics(self.registry)
        result_writer = ResultWriter(
            self.queue, self.card, metrics, torch_version=torch.__version__, ttl_s=TTL_S, embed_recipe=True
        )
        consumer = Consumer(self.queue, "soak", engine, result_writer, metrics, lease_s=15)
        worker = asyncio.create_task(consumer.run(stop))
        with Progress() as progress:
            bar = progress.add_task("images", total=self.images)
            async with asyncio.TaskGroup() as group:
                clients = [group.create_task(self._client()) for _ in range(CLIENTS)]
                while not all(client.done() for client in clients):
                    if worker.done():
                        worker.result()
                    self.memory.append((sum(self.settled.values()), _resident_mib()))
                    progress.update(bar, completed=sum(self.settled.values()))
                    await asyncio.sleep(1)
        stop.set()
        await worker
        engine.close()
        result_writer.close()

    async def _client(self) -> None:
        while self.admitted < self.images:
            tasks = self._job()
            self.admitted += len(tasks)
            admission = await self.client.admit(tasks, 10 * self.images, ttl_s=TTL_S)
            assert admission.ok, admission
            if self._dice.random() < 0.15:
                await asyncio.sleep(self._dice.expovariate(5))
                await self.client.cancel(tasks[0].job_id, "no longer wanted", ttl_s=TTL_S)
            state = await self._until_settled(tasks[0].job_id)
            self.settled.update(done=len(state.results))
            self.settled.update(failure.reason for failure in state.failures)

    def _job(self) -> list[ImageTask]:
        dice, job_id = self._dice, uuid.uuid4().hex
        count = dice.choice([1, 1, 1, 2, 4, 8, 16])
        (height, width), created = dice.choice(self.card.sizes), time.time()
        return [
            ImageTask(
                job_id=job_id,
                index=index,
                prompt=dice.choice(PROMPTS) + dice.choice(["", " red", " big"]),
                seed=dice.randrange(2**40),
                height=height,
                width=width,
                format=dice.choice(["png", "jpeg", "webp"]),
                mode=dice.choice(["fast", "fast", "fast", "strict"]),
                created=created,
                deadline=created + (dice.random() if dice.random() < 0.1 else 600),
            )
            for index in range(count)
        ]

    async def _until_settled(self, job_id: str) -> JobState:
        while True:
            state = await self.client.job(job_id)
            assert state is not None, f"job {job_id} is lost"
            if state.settled:
                return state
            await asyncio.sleep(0.05)

    def outcome(self, name: str) -> int:
        """The worker's own count of images with this outcome."""
        return int(self.registry.get_sample_value("fourstep_images_total", {"outcome": name}) or 0)


def _resident_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


def _report(soak: Soak, seconds: float) -> tuple[dict, list[str]]:
    """The figures, and the faults found in them."""
    second_half = soak.memory[len(soak.memory) // 2 :]
    slope = linear_regression(*zip(*second_half, strict=True)).slope * 1000
    worker = {name: soak.outcome(name) for name in ("ok", "error", "expired", "cancelled", "duplicate")}
    figures = {
        "admitted": soak.admitted,
        "settled": dict(sorted(soak.settled.items())),
        "claimed": soak.queue.claimed,
        "worker_metrics": worker,
        "seconds": round(seconds, 1),
        "resident_mib": {"half way": round(second_half[0][1], 1), "end": round(second_half[-1][1], 1)},
        "slope_mib_per_1000_images": round(slope, 3),
    }
    faults = []
    if soak.admitted != soak.settled.total():
        faults.append("admitted is not done + failed + cancelled + expired")
    if soak.queue.claimed != sum(worker.values()):
        faults.append("the worker lost images that it claimed")
    if worker["ok"] != soak.settled["done"] or worker["error"] != soak.settled["error"]:
        faults.append("the worker's metrics disagree with the results")
    if soak.settled["error"]:
        faults.append("images failed")
    return figures, faults


async def soak(images: int, seed: int, model: str) -> None:
    port = redis_servers.free_port()
    with tempfile.TemporaryDirectory() as folder, redis_servers.server(Path(folder), "", port=port):
        redis = open_redis(f"redis://127.0.0.1:{port}/0")
        soaked, started = Soak(redis, images, seed, model), time.monotonic()
        await soaked.run()
        left = await soaked.client.depth()
        await redis.aclose()
    figures, faults = _report(soaked, time.monotonic() - started)
    figures = {"model": soaked.card.name} | figures
    if left != (0, 0):
        faults.append(f"{left} images are left in the queue")
    for name, figure in figures.items():
        print(f"{name:26} {figure}")
    results_file.write("soak_of_model" if model else "soak", {**figures, "faults": faults})
    if faults:
        raise SystemExit("; ".join(faults))


def main(images: int = 10_000, seed: int = 0, model: str = "") -> None:
    asyncio.run(soak(images, seed, model))


if __name__ == "__main__":
    typer.run(main)
