"""A running system: its process tree, on the cores it is given; start, memory, batches, stop."""

import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.comparison.systems import FRONT_CORE, MODEL_CORE, Engine, Ports, System, Tuning, environment
from worker.startup import TRYING

START_S, STOP_S = 300.0, 10.0


class DidNotStart(Exception):
    """A system that answered no call; with the end of its log."""


@dataclass
class Server:
    """`first_picture_s` is the time from its start to its first picture, on all cores."""

    system: System
    ports: Ports
    batch_log: Path
    roots: list[psutil.Process]
    first_picture_s: float = 0.0

    def tree(self) -> list[psutil.Process]:
        """Every process of it that lives."""
        found = list(self.roots)
        for root in self.roots:
            with suppress(psutil.Error):
                found += root.children(recursive=True)
        return [process for process in found if process.is_running()]

    def worker_process(self) -> psutil.Process:
        """The one of ours that claims tasks and writes results; its child draws."""
        for process in self.tree():
            if any("worker" in part or "latency_model" in part for part in process.cmdline()):
                return process
        raise LookupError(f"{self.system.name}: no worker")

    def model_process(self) -> psutil.Process:
        """The one that draws: of ours the worker's child, of others the one with a thread on the model's core."""
        if self.system.ours:
            (engine,) = self.worker_process().children()
            return engine
        for process in self.tree():
            if any(_cores(tid) == {MODEL_CORE} for tid in _threads(process)):
                return process
        raise LookupError(f"{self.system.name}: no process draws")

    def pin(self, busy: dict[int, float]) -> None:
        """The thread that draws alone on its core, all others on the other; `busy` is `cpu_by_thread` before a load."""
        if self.system.ours:
            spent = {tid: cpu - busy.get(tid, 0.0) for tid, cpu in self.cpu_by_thread(self.model_process()).items()}
            os.sched_setaffinity(max(spent, key=lambda tid: spent[tid]), {MODEL_CORE})
        for process in self.tree():
            for tid in _threads(process):
                with suppress(ProcessLookupError):
                    if _cores(tid) != {MODEL_CORE}:
                        os.sched_setaffinity(tid, {FRONT_CORE})

    def cpu_by_thread(self, process: psutil.Process) -> dict[int, float]:
        return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}

    def settled(self) -> bool:
        """Return whether our worker has the runtime and the batch sizes that it keeps; others serve as they start."""
        if not self.system.ours:
            return True
        return TRYING not in httpx.get(f"http://127.0.0.1:{self.ports.http}/models", trust_env=False).text

    def memory_mib(self) -> float:
        """Proportional set size of the whole tree: what several processes share is counted once."""
        total = 0.0
        for process in self.tree():
            with suppress(OSError):
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += int(rollup.partition("\nPss:")[2].split()[0]) / 1024
        return total

    def cpu_s(self) -> float:
        """Processor seconds of all that lives of it."""
        total = 0.0
        for process in self.tree():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def batches(self) -> Counter[str]:
        """Batches (ours: steps) that the engine has run, by their number of images."""
        if not self.system.ours:
            return Counter(self.batch_log.read_text().split())
        text = httpx.get(f"http://127.0.0.1:{self.ports.metrics}/metrics", trust_env=False).text
        return _unaccumulated(text, "fourstep_batch_size")


@contextmanager
def running(
    system: System,
    engine: Engine,
    tuning: Tuning,
    first_call: Callable[[int], bool],
    settings: dict[str, str] | None = None,
) -> Iterator[Server]:
    """`system` until the block ends. `first_call(port)` is tried until it is true. Raises DidNotStart."""
    ports = Ports()
    with tempfile.TemporaryDirectory(prefix="fourstep-bench-") as folder:
        batch_log, log = Path(folder) / "batches", Path(folder) / "log"
        batch_log.touch()
        env = environment(ports, engine, tuning, {"BENCH_BATCH_LOG": str(batch_log), **(settings or {})})
        began = time.perf_counter()
        with log.open("w") as out:
            started = [
                psutil.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True, preexec_fn=_any_core)
                for command in system.commands(ports, engine)
            ]
        server = Server(system, ports, batch_log, started)
        try:
            while not first_call(ports.http):
                if time.perf_counter() - began > START_S or any(process.poll() is not None for process in started):
                    raise DidNotStart(f"{system.name} with {engine}: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            server.first_picture_s = time.perf_counter() - began
            while not server.settled():
                time.sleep(0.2)
            yield server
        finally:
            stop(server)


def stop(server: Server) -> None:
    """SIGTERM to what was started, then SIGKILL to all that is left of the tree."""
    everyone = server.tree()
    for root in server.roots:
        with suppress(psutil.Error):
            root.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(server.roots, timeout=STOP_S if server.system.ours else 2.0)
    for process in {*everyone, *alive}:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(server.roots, timeout=STOP_S)


def _any_core() -> None:
    os.sched_setaffinity(0, {FRONT_CORE, MODEL_CORE})


def _threads(process: psutil.Process) -> list[int]:
    with suppress(psutil.Error):
        return [thread.id for thread in process.threads()]
    return []


def _cores(tid: int) -> set[int]:
    with suppress(ProcessLookupError):
        return os.sched_getaffinity(tid)
    return set()


def _unaccumulated(text: str, name: str) -> Counter[str]:
    """Observations of histogram `name` in each of its buckets."""
    found, below = Counter[str](), 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{name}_bucket":
                found[sample.labels["le"].removesuffix(".0")] += int(sample.value) - below
                below = int(sample.value)
    return Counter({bucket: count for bucket, count in found.items() if count})
