"""The processes under trial: Redis with an append-only file, workers and API copies, started again at each death."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.exceptions import RedisError

from jobs import clock
from jobs.queue.claims import Claim
from jobs.testing import redis_servers
from jobs.testing.waiting import block_until

if TYPE_CHECKING:
    from worker.consumer import Consumer

# Everything that takes seconds to import is imported once, and each life is forked from there.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["worker.process", "worker.engine_process.server", "diffusers", "tests.chaos.parts.preload", "service.server"]
)

POLL_S = 0.1

# Workers die so often here that bad luck alone takes a task's attempts, were they as few as in service.
MAX_ATTEMPTS = 6

# The beginning of a command in an append-only file.
TORN = b"*3\r\n$3\r\nSET\r\n$6\r\nhalf a"

POISON = "a prompt that takes its worker down"


def _live(kind: str, settings: dict[str, str], log: str, ahead_s: float) -> None:
    """The body of one life: `kind` is worker or api, whose clock is wrong by `ahead_s` seconds."""
    os.environ.update(settings)
    _set_clock(ahead_s)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    os.dup2(descriptor, 1)
    if kind == "worker":
        from worker import consumer
        from worker.main import main

        _poison(consumer.Consumer)
        consumer.MAX_ATTEMPTS = MAX_ATTEMPTS

        sys.exit(main())
    from jobs.settings import ApiSettings
    from service.server import serve

    serve(ApiSettings())


def _set_clock(ahead_s: float) -> None:
    now = time.time
    time.time = lambda: now() + ahead_s  # type: ignore[assignment]
    clock._ORIGIN += ahead_s


def _poison(consumer: "type[Consumer]") -> None:
    """Let a poisonous prompt take the worker down when it is handed to the engine."""
    add = consumer._add

    def add_or_die(self: "Consumer", claims: Mapping[str, Claim]) -> None:
        if any(claim.task.prompt == POISON for claim in claims.values()):
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, claims)

    consumer._add = add_or_die  # type: ignore[method-assign]


class AppendOnlyRedis:
    """A Redis that writes every command down before it answers."""

    def __init__(self, folder: Path) -> None:
        self.port = redis_servers.free_port()
        self._folder = folder
        self._stack = ExitStack()
        self.process = self._start()

    @property
    def client(self) -> Redis:
        return Redis(port=self.port)

    def restart(self) -> None:
        """SIGKILL, and a new life from the append-only file."""
        self._stack.close()
        self.process = self._start()

    def restart_torn(self) -> None:
        """SIGKILL in the midst of writing a command down, which nobody was promised, and a new life."""
        self._stack.close()
        latest = max(self._folder.glob("appendonlydir/*.incr.aof"), key=lambda file: file.stat().st_mtime)
        with latest.open("ab") as file:
            file.write(TORN)
        self.process = self._start()

    @contextmanager
    def unwritable(self) -> Iterator[None]:
        """A disk that takes no snapshot, after which Redis takes no writes."""
        snapshot = self._folder / "dump.rdb"
        snapshot.unlink(missing_ok=True)
        snapshot.mkdir()
        try:
            self._save("err")
            yield
        finally:
            snapshot.rmdir()
            self._save("ok")

    def _save(self, expected: str) -> None:
        with self.client as client:

            def saved() -> bool:
                with suppress(RedisError):
                    client.bgsave()
                return client.info("persistence")["rdb_last_bgsave_status"] == expected

            block_until(saved, f"a snapshot does not end {expected}")

    def stop(self) -> None:
        self._stack.close()

    def _start(self) -> subprocess.Popen:
        config = "appendonly yes\nappendfsync always\nmaxmemory-policy noeviction\nsave 86400 1"
        return self._stack.enter_context(redis_servers.server(self._folder, config, port=self.port))


class Lives:
    """A process that is started again whenever it dies; its counters are summed over all its lives.

    `url` is where its metrics are, and for an API its service; `settings` count from its next life on.
    """

    def __init__(
        self, name: str, kind: str, settings: dict[str, str], port: int, folder: Path, ahead_s: float = 0.0
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.deaths = 0
        self.serving = False
        self.settings = settings
        self._kind = kind
        self._arguments = (kind, settings, str(folder / f"{name}.log"), ahead_s)
        self._ended: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._process = self._begin()

    @property
    def counts(self) -> Counter[str]:
        """Each counter with its labels, as last scraped in each life."""
        return self._ended + self._seen

    async def keep(self) -> None:
        """Scrape, and start again after each death, for ever."""
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            while True:
                await self.scrape(client)
                if not self._process.is_alive():
                    self._bury()
                    self._process = self._begin()
                await asyncio.sleep(POLL_S)

    async def scrape(self, client: httpx.AsyncClient) -> bool:
        """Read its counters; False when it does not answer."""
        try:
            text = (await client.get(f"{self.url}/metrics")).text
        except httpx.TransportError:
            return False
        self.serving = self._kind == "api" or "fourstep_build_info{" in text
        families = text_string_to_metric_families(text)
        samples = [sample for family in families if family.type == "counter" for sample in family.samples]
        self._seen = Counter(
            {
                "/".join([sample.name, *sample.labels.values()]): int(sample.value)
                for sample in samples
                if sample.name.endswith("_total")
            }
        )
        return True

    def send(self, number: signal.Signals) -> None:
        if self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, number)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()

    def _bury(self) -> None:
        self._process.join()
        self.deaths += 1
        self.serving = False
        self._ended, self._seen = self.counts, Counter()

    def _begin(self) -> multiprocessing.process.BaseProcess:
        # Not a daemon, which may have no child: a worker's engine is one.
        process = FORKS.Process(target=_live, args=self._arguments)
        process.start()
        return process
