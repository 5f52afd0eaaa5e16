"""The faults that are injected while the service runs."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from jobs.testing.waiting import wait_until
from tests.chaos.processes import AppendOnlyRedis, Lives
from tests.chaos.proxy import Proxy

EVERY_FAULT = (
    *("cut", "stop_api", "restart_redis", "slow", "kill_api", "pause_redis", "cut", "fill_redis"),
    *("stop_worker", "kill_api", "restart_redis", "cut", "pause_redis", "stop_api"),
)
IN_SHORT = ("cut", "kill_api", "restart_redis", "fill_redis", "stop_worker")


@dataclass
class Faults:
    """Faults of every kind on these parts; `done` counts them. Each restores what it broke before it returns."""

    redis: AppendOnlyRedis
    proxy: Proxy
    workers: Sequence[Lives]
    apis: Sequence[Lives]
    seed: int = 0
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    async def often(self, pause_s: float) -> None:
        """Kill a worker every `pause_s` seconds, for ever."""
        while True:
            await asyncio.sleep(pause_s)
            self._random.choice(self.workers).send(signal.SIGKILL)
            self.done["worker kill -9"] += 1

    async def each(self, program: Sequence[str], pause_s: float, progress: Callable[[], float]) -> None:
        """The faults of `program`, spread over the run: each when its share of `progress` (0 to 1) is reached."""
        for position, name in enumerate(program):
            due = (position + 0.5) / len(program)
            await wait_until(lambda due=due: progress() >= due, timeout_s=600)  # type: ignore[misc]
            await getattr(self, name)()
            await asyncio.sleep(pause_s)

    async def restart_redis(self) -> None:
        await asyncio.to_thread(self.redis.restart)
        self.done["Redis kill -9 and restart"] += 1

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

    def _limit_memory(self, limit: int) -> None:
        while True:
            try:
                with self.redis.client as client:
                    client.config_set("maxmemory", limit)
                return
            except RedisError:
                continue
