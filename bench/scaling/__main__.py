"""The figures of docs/scaling.md, limits of one Redis and gain from more workers: `make bench-scaling`.

Redis is measured under the real front end. The simulation runs the real scheduler for 1 to 1,000 workers; it is first
compared with real worker processes whose network only sleeps.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice, product, takewhile
from pathlib import Path
from typing import Any

import httpx
import torch
from redis import Redis

from bench.engine import latency_model
from bench.results_file import RESULTS
from bench.scheduling.calibration import Costs, engine_costs, outside
from bench.scheduling.simulation import Call, Simulation, bursty, poisson
from bench.scheduling.step_rules import step_level
from bench.service import http_load
from bench.service.front_end import Stack, front_end
from jobs.settings import WorkerSettings
from worker.consumer import MOST_HELD
from worker.model_folder.loading import load

FIXED_S, PER_ROW_S = 0.010, 0.005
STEPS, MAX_BATCH = 4, 8
STAND_IN, STUDENT = "stand-in", "bundled student"
HELD_OF_SEVERAL = 12
"""Images that one of several workers holds at a time: a batch of eight, and half of one at hand."""
REQUEST = http_load.post("/generate", json.dumps({"prompt": "a cat"}).encode())
LOADS = (0.5, 0.7, 0.9)
WORKERS = (1, 2, 4, 10, 30, 100, 300, 1000)
REPEATS = 3


def redis_cost(num_images: int, calls: int) -> dict[str, Any]:
    """Commands and bytes that an image costs Redis, of one call after the other for `num_images`."""
    body = json.dumps({"prompt": "a cat", "num_images": num_images}).encode()
    with front_end(["bench.service.null_worker"]) as stack:
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
    with front_end(["bench.service.null_worker", "--rate", "0.001"]) as stack:
        redis = Redis.from_url(stack.redis_url)
        before = redis.info("memory")["used_memory"]
        for _ in range(images // 40):
            url = f"http://127.0.0.1:{stack.port}/generate"
            httpx.post(url, json=body, headers={"Prefer": "respond-async"}, trust_env=False).raise_for_status()
        return (redis.info("memory")["used_memory"] - before) / images


def _commands(redis: Redis) -> dict[str, int]:
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in redis.info("commandstats").items()}


@contextmanager
def stand_in_workers(workers: int) -> Iterator[Stack]:
    """The front end with `workers` real processes whose network only sleeps."""
    arguments = ["bench.engine.latency_model", "--fixed", str(FIXED_S), "--per-row", str(PER_ROW_S)]
    with front_end(arguments) as stack, ExitStack() as others:
        environment = os.environ | {"FOURSTEP_REDIS_URL": stack.redis_url, "FOURSTEP_METRICS_PORT": "0"}
        for _ in range(workers - 1):
            other = subprocess.Popen([sys.executable, "-m", *arguments], env=environment)
            others.callback(other.wait)
            others.callback(other.terminate)
        _wait_for_workers(stack.port, workers)
        yield stack


def _wait_for_workers(port: int, workers: int) -> None:
    url = f"http://127.0.0.1:{port}/models"
    while len(httpx.get(url, trust_env=False).json()["models"][0]["workers"]) < workers:
        time.sleep(0.2)
    time.sleep(WorkerSettings().lease_s / 3)  # then each knows whether it is alone


def measured(port: int, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """Latency of single images through HTTP, under Poisson arrivals."""
    answers = asyncio.run(http_load.open_loop(port, rate, seconds, lambda: REQUEST, seed))
    assert set(answers.counts) == {200}, answers.counts
    return {"images": answers.counts[200], "p50": answers.quantile(0.5), "p99": answers.quantile(0.99)}


def simulated(cost: Costs, workers: int, times: Iterable[float]) -> dict[str, float]:
    """The same of single images that arrive at `times`."""
    device = cost.device(STEPS)
    window = HELD_OF_SEVERAL * (MOST_HELD if workers == 1 else 1)
    report = Simulation(device, step_level(device), workers, window).run([Call(now) for now in times])
    quantiles = {name: report.quantile(share) + cost.outside for name, share in (("p50", 0.5), ("p99", 0.99))}
    return quantiles | {"mean_batch": report.mean_batch}


def costs() -> dict[str, Any]:
    """Costs of the stand-in and of the bundled student on one thread; those outside the engine are equal."""
    stand_in = engine_costs(latency_model.sleeping_model(FIXED_S, PER_ROW_S), MAX_BATCH, 30)
    with stand_in_workers(1) as stack:
        asyncio.run(http_load.closed_loop(stack.port, 1, 20, lambda: REQUEST))
        around = outside(stack.port, REQUEST, stand_in, STEPS, 200)
    settings = WorkerSettings()
    torch.set_num_threads(1)
    student = engine_costs(load(settings.model, "cpu", "float32", STEPS), MAX_BATCH, 10)
    return {STAND_IN: replace(stand_in, outside=around).written(), STUDENT: replace(student, outside=around).written()}


def validation(cost: Costs, workers: int, seconds: float) -> list[dict[str, Any]]:
    """Real processes beside the simulation, given the times at which the calls of each run came."""
    rows = []
    with stand_in_workers(workers) as stack:
        for share, seed in product(LOADS[:2], range(REPEATS)):
            rate = share * workers * cost.device(STEPS).capacity
            real = measured(stack.port, rate, seconds, seed)
            times = takewhile(lambda now: now < seconds, poisson(rate, random.Random(seed)))
            about = {"workers": workers, "load": share, "seed": seed, "images": real["images"]}
            rows.append(about | _side_by_side(real, simulated(cost, workers, times)))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def _side_by_side(real: dict[str, float], ideal: dict[str, float]) -> dict[str, float]:
    kinds = {"measured": real, "simulated": ideal}
    return {f"{kind}_{name}_ms": round(1000 * run[name], 1) for kind, run in kinds.items() for name in ("p50", "p99")}


def course(name: str, cost: Costs) -> list[dict[str, Any]]:
    """Latency and cost from 1 to 1,000 workers, under even and under bursty arrivals of the same rate."""
    rows, capacity = [], cost.device(STEPS).capacity
    for workers, share in product(WORKERS, LOADS):
        for burst in (1, 8 * workers):
            dice, rate = random.Random(0), share * workers * capacity
            times = poisson(rate, dice) if burst == 1 else bursty(rate, dice, burst)
            run = simulated(cost, workers, islice(times, max(20_000, 100 * workers)))
            about = {"device": name, "workers": workers, "load": share, "burst": burst}
            latency = {f"{quantile}_ms": round(1000 * run[quantile], 1) for quantile in ("p50", "p99")}
            paid = {"worker_ms_per_image": round(1000 / (share * capacity), 2)}
            rows.append(about | latency | {"mean_batch": round(run["mean_batch"], 2)} | paid)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=35, help="length of each run of real workers")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="counts of real workers")
    parser.add_argument("--only", choices=["redis", "costs", "validation", "course"])
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    arguments = parser.parse_args()
    report: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    report |= {"cores": os.cpu_count(), "stand_in_step_seconds": f"{FIXED_S} + {PER_ROW_S} x rows"}
    if arguments.only in (None, "redis"):
        report["redis"] = [redis_cost(1, 2000), redis_cost(4, 1000)]
        report["redis_bytes_per_waiting_image"] = round(waiting_bytes())
    if arguments.only in (None, "costs"):
        report["costs"] = costs()
    known = {name: Costs.read(figures) for name, figures in report["costs"].items()}
    if arguments.only in (None, "validation"):
        others = [run for run in report.get("validation", []) if run["workers"] not in arguments.workers]
        runs = [run for count in arguments.workers for run in validation(known[STAND_IN], count, arguments.seconds)]
        report["validation"] = sorted(others + runs, key=lambda run: run["workers"])
    if arguments.only in (None, "course"):
        report["course"] = [row for name, cost in known.items() for row in course(name, cost)]
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
