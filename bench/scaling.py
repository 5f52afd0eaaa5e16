"""How far one Redis goes, and what more workers give: the figures of docs/scaling.md. ``make bench-scaling``.

Redis is measured under the real front end. The simulation runs the real plan for 1 to 1,000 workers; it is first held
against real worker processes whose network only takes its time.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from bench import http_load
from bench.front_end import front_end
from bench.simulation import Device, Simulation, bursty, jobs, poisson, step_level

RESULTS = Path(__file__).parent / "results"
FIXED_S, PER_ROW_S = 0.010, 0.005
WINDOW = 12
"""Images that a worker holds at a time: a batch of eight, and half of one at hand."""
LOADS = (0.5, 0.7, 0.9)
WORKERS = (1, 2, 4, 10, 30, 100, 300, 1000)
REPEATS = 3


def device(fixed_s: float = FIXED_S) -> Device:
    return Device(lambda rows: fixed_s + PER_ROW_S * rows)


def redis_cost(num_images: int, calls: int) -> dict[str, Any]:
    """Commands and bytes that an image costs Redis, of one call after the other for `num_images`."""
    body = json.dumps({"prompt": "a cat", "num_images": num_images}).encode()
    with front_end(["bench.null_worker"]) as stack:
        redis = Redis.from_url(stack.redis_url)
        before, net = _commands(redis), redis.info("stats")
        asyncio.run(http_load.closed_loop(stack.port, 8, calls, lambda: http_load.post("/generate", body)))
        after, later = _commands(redis), redis.info("stats")
    images = num_images * calls
    sent = {name: (after[name] - before.get(name, 0)) / images for name in after}
    return {
        "images_per_call": num_images,
        "commands_per_image": {name: round(count, 2) for name, count in sorted(sent.items()) if count >= 0.01},
        "bytes_to_redis_per_image": round((later["total_net_input_bytes"] - net["total_net_input_bytes"]) / images),
        "bytes_from_redis_per_image": round((later["total_net_output_bytes"] - net["total_net_output_bytes"]) / images),
    }


def waiting_bytes(images: int = 400) -> float:
    """Memory of an image that waits in the queue."""
    body = {"prompt": "a smiling cat face in the style of a sticker", "num_images": 40}
    with front_end(["bench.null_worker", "--rate", "0.001"]) as stack:
        redis = Redis.from_url(stack.redis_url)
        before = redis.info("memory")["used_memory"]
        for _ in range(images // 40):
            url = f"http://127.0.0.1:{stack.port}/generate"
            httpx.post(url, json=body, headers={"Prefer": "respond-async"}, trust_env=False).raise_for_status()
        return (redis.info("memory")["used_memory"] - before) / images


def _commands(redis: Redis) -> dict[str, int]:
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in redis.info("commandstats").items()}


def measured(workers: int, load: float, seconds: float, seed: int) -> dict[str, float]:
    """Latency of single images through HTTP, from `workers` real processes at `load` of their capacity."""
    arguments = ["bench.latency_model", "--fixed", str(FIXED_S), "--per-row", str(PER_ROW_S)]
    request = http_load.post("/generate", json.dumps({"prompt": "a cat"}).encode())
    with front_end(arguments) as stack, ExitStack() as others:
        environment = os.environ | {"FOURSTEP_REDIS_URL": stack.redis_url, "FOURSTEP_METRICS_PORT": "0"}
        for _ in range(workers - 1):
            other = subprocess.Popen([sys.executable, "-m", *arguments], env=environment)
            others.callback(other.wait)
            others.callback(other.terminate)
        _wait_for_workers(stack.port, workers)
        rate = load * workers * device().capacity
        answers = asyncio.run(http_load.open_loop(stack.port, rate, seconds, lambda: request, seed))
    assert set(answers.counts) == {200}, answers.counts
    return {"p50": answers.quantile(0.5), "p99": answers.quantile(0.99)}


def _wait_for_workers(port: int, workers: int) -> None:
    url = f"http://127.0.0.1:{port}/models"
    while len(httpx.get(url, trust_env=False).json()["models"][0]["workers"]) < workers:
        pass


def simulated(workers: int, load: float, count: int, seed: int, burst: int = 1) -> dict[str, float]:
    dice, rate = random.Random(seed), load * workers * device().capacity
    times = poisson(rate, dice) if burst == 1 else bursty(rate, dice, burst)
    report = Simulation(device(), step_level(device()), workers, WINDOW).run(jobs(times, [1], count, dice))
    return {"p50": report.quantile(0.5), "p99": report.quantile(0.99), "mean_batch": report.mean_batch}


def validation(seconds: float) -> list[dict[str, Any]]:
    """Real processes beside the simulation, in turns."""
    rows = []
    for workers in (1, 2):
        for load in LOADS[:2]:
            real = [measured(workers, load, seconds, seed) for seed in range(REPEATS)]
            ideal = [simulated(workers, load, 20_000, seed) for seed in range(REPEATS)]
            row: dict[str, Any] = {"workers": workers, "load": load}
            for quantile in ("p50", "p99"):
                row[f"measured_{quantile}_ms"] = round(1000 * statistics.median(run[quantile] for run in real), 1)
                row[f"simulated_{quantile}_ms"] = round(1000 * statistics.median(run[quantile] for run in ideal), 1)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def course() -> list[dict[str, Any]]:
    """Latency and cost from 1 to 1,000 workers, under even and under bursty arrivals of the same rate."""
    rows = []
    for workers in WORKERS:
        for load in LOADS:
            for burst in (1, 8 * workers):
                run = simulated(workers, load, max(20_000, 100 * workers), 0, burst)
                rows.append(
                    {
                        "workers": workers,
                        "load": load,
                        "burst": burst,
                        "p50_ms": round(1000 * run["p50"], 1),
                        "p99_ms": round(1000 * run["p99"], 1),
                        "mean_batch": round(run["mean_batch"], 2),
                        "worker_ms_per_image": round(1000 / (load * device().capacity), 2),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="length of each run of real workers")
    parser.add_argument("--only", choices=["redis", "validation", "course"])
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    arguments = parser.parse_args()
    report: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    report |= {"cores": os.cpu_count(), "step_seconds": f"{FIXED_S} + {PER_ROW_S} x bucket"}
    if arguments.only in (None, "redis"):
        report["redis"] = [redis_cost(1, 2000), redis_cost(4, 1000)]
        report["redis_bytes_per_waiting_image"] = round(waiting_bytes())
    if arguments.only in (None, "validation"):
        report["validation"] = validation(arguments.seconds)
    if arguments.only in (None, "course"):
        report["course"] = course()
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
