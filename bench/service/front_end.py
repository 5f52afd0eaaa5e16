"""The front end and the queue without an engine: images a second, latency, memory, overload. ``make bench-service``.

One API process, one Redis, one worker that settles at once, and the load, all on this machine. ``--latency`` compares
one image through HTTP with the bare engine, on the bundled model.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench import results_file
from bench.service import http_load
from jobs.testing import redis_servers

TTL_S = 5.0


@dataclass
class Stack:
    """A running front end; its API answers on `port`."""

    port: int
    redis_url: str
    parts: dict[str, psutil.Process]

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds that each part has spent."""
        return {name: sum(part.cpu_times()[:2]) for name, part in self.parts.items()}


@contextmanager
def front_end(worker: list[str], api: dict[str, str] | None = None) -> Iterator[Stack]:
    """Redis, the API and ``python -m`` `worker`, ready when the block begins."""
    redis_port, port = redis_servers.free_port(), redis_servers.free_port()
    url = f"redis://127.0.0.1:{redis_port}/0"
    shared = os.environ | {"FOURSTEP_REDIS_URL": url, "FOURSTEP_LOG_LEVEL": "warning"}
    own = {"FOURSTEP_PORT": str(port), "FOURSTEP_RESULT_TTL_S": str(TTL_S)} | (api or {})
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_servers.server(Path(folder), "", port=redis_port) as redis,
    ):
        started = [
            subprocess.Popen([sys.executable, "-P", "-m", "fourstep", "api"], env=shared | own),
            subprocess.Popen([sys.executable, "-m", *worker], env=shared | {"FOURSTEP_METRICS_PORT": "0"}),
        ]
        try:
            _wait_until_ready(port, started)
            processes = {"api": started[0], "worker": started[1], "redis": redis}
            yield Stack(port, url, {name: psutil.Process(process.pid) for name, process in processes.items()})
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()


def _wait_until_ready(port: int, started: list[subprocess.Popen]) -> None:
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        if any(process.poll() is not None for process in started):
            raise RuntimeError("a part of the front end did not start")
        time.sleep(0.2)


def _request(num_images: int = 1, **fields: Any) -> bytes:
    return http_load.post("/generate", json.dumps({"prompt": "a cat", "num_images": num_images} | fields).encode())


def _null_worker(stack_rate: float = 0.0) -> list[str]:
    return ["bench.service.null_worker", "--rate", str(stack_rate)]


def saturation(stack: Stack, num_images: int, requests: int, repeats: int) -> dict[str, Any]:
    """Closed loop with 64 connections: the best and the median of the repeats, and what each part costs."""
    request, rates = _request(num_images), []
    asyncio.run(http_load.closed_loop(stack.port, 64, 300, lambda: request))
    cpu = stack.cpu_s()
    for _ in range(repeats):
        answers = asyncio.run(http_load.closed_loop(stack.port, 64, requests, lambda: request))
        assert set(answers.counts) == {200}, answers.counts
        rates.append(answers.rate() * num_images)
    images = requests * repeats * num_images
    spent = {name: (seconds - cpu[name]) / images for name, seconds in stack.cpu_s().items()}
    return {
        "images_per_call": num_images,
        "images_per_second_best": round(max(rates)),
        "images_per_second_median": round(statistics.median(rates)),
        "cpu_microseconds_per_image": {name: round(seconds * 1e6) for name, seconds in spent.items()},
    }


def half_load(stack: Stack, rate: float, seconds: float) -> dict[str, Any]:
    """Poisson arrivals of single images at `rate` a second."""
    request = _request()
    answers = asyncio.run(http_load.open_loop(stack.port, rate, seconds, lambda: request))
    return {
        "offered_per_second": round(rate),
        "statuses": dict(answers.counts),
        "p50_ms": round(1000 * answers.quantile(0.5), 1),
        "p99_ms": round(1000 * answers.quantile(0.99), 1),
    }


def memory(stack: Stack, images: int) -> dict[str, Any]:
    """Resident memory of each part after each tenth of `images`, whose jobs are kept for ten seconds.

    Redis keeps a settled job until its deadline plus the TTL, so it grows for that long and then stays level.
    """
    request, course = _request(8, timeout=TTL_S), []
    for _ in range(10):
        asyncio.run(http_load.closed_loop(stack.port, 32, images // 80, lambda: request))
        course.append({name: round(part.memory_info().rss / 2**20, 1) for name, part in stack.parts.items()})
    return {"images": images, "resident_mib_after_each_tenth": course}


def overload(capacity: float, seconds: float) -> dict[str, Any]:
    """Twice as many single images as a worker of `capacity` a second can make."""
    settings = {"FOURSTEP_MAX_QUEUED_IMAGES": str(max(64, round(capacity / 2)))}
    with front_end(_null_worker(capacity), settings) as stack:
        request = _request(timeout=30)
        asyncio.run(http_load.open_loop(stack.port, capacity / 2, 2, lambda: request))
        answers = asyncio.run(http_load.open_loop(stack.port, 2 * capacity, seconds, lambda: request))
    return {
        "capacity_per_second": round(capacity),
        "offered_per_second": round(2 * capacity),
        "goodput_of_capacity": round(answers.rate() / capacity, 3),
        "statuses": dict(answers.counts),
        "p50_ms_of_429": round(1000 * answers.quantile(0.5, 429), 1),
        "p99_ms_of_429": round(1000 * answers.quantile(0.99, 429), 1),
        "429_without_retry_after": answers.without_retry_after,
    }


def latency(images: int) -> dict[str, Any]:
    """Single images of the bundled model: through HTTP, and from the engine alone, in turns."""
    from jobs.settings import WorkerSettings
    from worker.engine.engine import Engine
    from worker.engine.step_times.batch_sizes import STRICT
    from worker.generate import generate
    from worker.model_folder.loading import load

    settings = WorkerSettings()
    engine = Engine(load(settings.model, settings.device, settings.dtype, settings.steps), STRICT)
    engine.warm_up()
    served, bare = [], []
    with front_end(["fourstep", "worker"]) as stack, httpx.Client(trust_env=False, timeout=60) as http:
        for seed in range(images + 5):
            began = time.perf_counter()
            body = {"prompt": "a smiling cat face", "seed": seed}
            http.post(f"http://127.0.0.1:{stack.port}/generate", json=body).raise_for_status()
            between = time.perf_counter()
            generate(engine, ["a smiling cat face"], [seed])
            served.append(between - began)
            bare.append(time.perf_counter() - between)
    over = [one - other for one, other in zip(served[5:], bare[5:], strict=True)]
    return {
        "images": images,
        "http_median_ms": round(1000 * statistics.median(served[5:]), 2),
        "engine_median_ms": round(1000 * statistics.median(bare[5:]), 2),
        "difference_median_ms": round(1000 * statistics.median(over), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.service.front_end", description=__doc__)
    parser.add_argument("--latency", action="store_true", help="only one image alone, on the bundled model")
    parser.add_argument("--images", type=int, default=100_000, help="how many for the course of memory")
    arguments = parser.parse_args()
    if arguments.latency:
        _write("front_end_latency", latency(60))
        return
    with front_end(_null_worker()) as stack:
        full = [saturation(stack, 1, 1500, 5), saturation(stack, 4, 500, 5)]
        best = full[0]["images_per_second_best"]
        report = {"saturation": full, "half_load": half_load(stack, best / 2, 8)}
    report["overload"] = overload(round(best * 0.35), 8)
    _write("front_end", report)
    with front_end(_null_worker()) as stack:
        _write("front_end_memory", memory(stack, arguments.images))


def _write(name: str, report: dict[str, Any]) -> None:
    results_file.write(name, report)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
