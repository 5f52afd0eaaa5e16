"""The faults that are injected while the service runs."""

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import RedisError

from jobs.image_store import RETRY_TIMEOUT
from jobs.queue.keys import ModelKeys
from jobs.testing.s3_server import S3Server
from jobs.testing.waiting import wait_until
from tests.chaos.parts.processes import AppendOnlyRedis, Lives
from tests.chaos.parts.proxy import Proxy

RECORDS = Path(__file__).parents[1] / "jobs" / "records"

# The model is exchanged early: only strict images of the one that is served at the end can be made again.
EVERY_FAULT = (
    *("cut", "new_model", "stop_api", "old_records", "restart_redis", "stall_workers", "slow", "kill_api"),
    *("pause_redis", "cut", "kill_one_holder", "fill_redis", "stop_worker", "fill_disk", "kill_api", "tear_file"),
    *("cut", "stall_workers", "pause_redis", "stop_api"),
)
IN_SHORT = (
    "cut",
    "new_model",
    "kill_api",
    "old_records",
    "tear_file",
    "stall_workers",
    "fill_redis",
    "stop_worker",
)
# What a bucket beside Redis may make worse: its own absence, and whoever dies or sleeps between it and Redis.
WITH_BUCKET = (
    *("stop_store", "new_model", "kill_api", "restart_redis", "stall_workers", "stop_store", "stop_worker"),
    *("pause_redis", "stop_store", "cut"),
)


@dataclass
class Faults:
    """Faults of every kind on these parts; `done` counts them. Each restores what it broke before it returns."""

    redis: AppendOnlyRedis
    proxy: Proxy
    workers: Sequence[Lives]
    apis: Sequence[Lives]
    models: Sequence[Path]
    lease_s: float
    bucket: S3Server | None = None
    seed: int = 0
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._model = 0

    async def often(self, images: int) -> None:
        """Kill a worker whenever `images` more were made, for ever, as long as another one serves meanwhile."""
        self.done["worker kill -9"] = 0  # what never comes to it is seen in the verdict
        while True:
            due = self._made + images
            await wait_until(lambda due=due: self._made >= due, timeout_s=600)  # type: ignore[misc]
            await wait_until(lambda: sum(worker.serving for worker in self.workers) > 1, timeout_s=600)
            self._random.choice([worker for worker in self.workers if worker.serving]).send(signal.SIGKILL)
            self.done["worker kill -9"] += 1

    @property
    def _made(self) -> int:
        return sum(worker.counts["fourstep_images_total/ok"] for worker in self.workers)

    async def each(self, program: Sequence[str], pause_s: float, progress: Callable[[], float]) -> None:
        """The faults of `program`, spread over the run: each when its share of `progress` (0 to 1) is reached."""
        for position, name in enumerate(program):
            due = (position + 0.5) / len(program)
            await wait_until(lambda due=due: progress() >= due, timeout_s=600)  # type: ignore[misc]
            await getattr(self, name)()
            await asyncio.sleep(pause_s)

    async def stall_workers(self) -> None:
        """Stop two workers by SIGSTOP for longer than their leases last."""
        stalled = self._random.sample(self.workers, 2)
        for worker in stalled:
            worker.send(signal.SIGSTOP)
        await asyncio.sleep(3 * self.lease_s)
        for worker in stalled:
            worker.send(signal.SIGCONT)
        self.done["worker stopped past its lease"] += len(stalled)

    async def kill_one_holder(self) -> None:
        """Kill one worker three times, each time when it serves again."""
        worker = self.workers[0]
        for _ in range(3):
            await wait_until(lambda: worker.serving, timeout_s=600)
            deaths = worker.deaths
            worker.send(signal.SIGKILL)
            await wait_until(lambda deaths=deaths: worker.deaths > deaths)  # type: ignore[misc]
        self.done["one holder killed three times"] += 1

    async def old_records(self) -> None:
        """Write records of the previous release, and one that nobody can read, among those of today."""
        await asyncio.to_thread(self._write_old_records)
        self.done["records of the previous release"] += 1

    async def new_model(self) -> None:
        """Exchange the model under its name, one worker after the other, and back at the next time."""
        self._model = (self._model + 1) % len(self.models)
        for worker in self.workers:
            worker.settings["FOURSTEP_MODEL"] = str(self.models[self._model])
            deaths = worker.deaths
            worker.send(signal.SIGTERM)
            await wait_until(lambda worker=worker, deaths=deaths: worker.deaths > deaths)  # type: ignore[misc]
            await wait_until(lambda worker=worker: worker.serving, timeout_s=600)  # type: ignore[misc]
        self.done["model exchanged under its name"] += 1

    async def fill_disk(self) -> None:
        """Let Redis fail to write its snapshot, after which it takes no writes, for longer than a lease."""
        with self.redis.unwritable():
            await asyncio.sleep(2 * self.lease_s)
        self.done["disk of Redis full"] += 1

    async def restart_redis(self) -> None:
        await asyncio.to_thread(self.redis.restart)
        self.done["Redis kill -9 and restart"] += 1

    async def tear_file(self) -> None:
        await asyncio.to_thread(self.redis.restart_torn)
        self.done["Redis kill -9 with a torn append-only file"] += 1

    async def fill_redis(self) -> None:
        """Leave Redis no memory for anything new, for longer than a lease."""
        await asyncio.to_thread(self._limit_memory, 1)
        await asyncio.sleep(5)
        await asyncio.to_thread(self._limit_memory, 0)
        self.done["Redis full"] += 1

    async def pause_redis(self) -> None:
        """Stop Redis by SIGSTOP for longer than a lease and than any client waits."""
        self.redis.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(7)
        self.redis.process.send_signal(signal.SIGCONT)
        self.done["Redis stopped for 7 s"] += 1

    async def stop_store(self) -> None:
        """Stop the server of the bucket for longer than its client tries again and than a lease lasts."""
        assert self.bucket
        await asyncio.to_thread(self.bucket.stop)
        await asyncio.sleep(RETRY_TIMEOUT.total_seconds() + self.lease_s)
        await asyncio.to_thread(self.bucket.start)
        self.done["image store away for 12 s"] += 1

    async def slow(self) -> None:
        self.proxy.delay_s = 0.05
        await asyncio.sleep(4)
        self.proxy.delay_s = 0.0
        self.done["50 ms more each way"] += 1

    async def cut(self) -> None:
        self.done["sockets cut"] += self.proxy.cut()

    async def kill_api(self) -> None:
        self._random.choice(self.apis).send(signal.SIGKILL)
        self.done["API kill -9"] += 1

    async def stop_api(self) -> None:
        self._random.choice(self.apis).send(signal.SIGTERM)
        self.done["API SIGTERM"] += 1

    async def stop_worker(self) -> None:
        self._random.choice(self.workers).send(signal.SIGTERM)
        self.done["worker SIGTERM"] += 1

    def _write_old_records(self) -> None:
        (release,) = sorted(RECORDS.glob("*.json"))[-1:]
        records = json.loads(release.read_text())
        keys = ModelKeys(self.models[0].name)
        with self.redis.client as client:
            client.set(keys.card, json.dumps(records["ModelCard"][0]), px=60_000)
            client.publish(keys.preview_subscriptions, json.dumps(records["PreviewSubscription"][0]))
            for channel in client.pubsub_channels("fourstep:events:*"):
                client.publish(channel, json.dumps(records["JobEvent"][0]))
                client.publish(channel, "no event")
            client.xadd(keys.tasks, {"task": json.dumps(records["ImageTask"][0])})
            client.xadd(keys.tasks, {"task": "no task"})

    def _limit_memory(self, limit: int) -> None:
        while True:
            try:
                with self.redis.client as client:
                    client.config_set("maxmemory", limit)
                return
            except RedisError:
                continue
