"""Checks a running compose stack, as `make check-compose` does: pictures, metrics, two workers, a Redis restart.

Run from the repository's root, with COMPOSE set to the compose command and its files.
"""

import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.operations.live_panels import Stack, wait_until

COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))


def main() -> None:
    with httpx.Client(timeout=120, trust_env=False) as client:
        stack = Stack(client, _local("HTTP_PORT", 8000), _local("PROMETHEUS_PORT", 9090))
        stack.pictures(4)
        print("pictures come back", flush=True)
        panels = stack.fill_every_panel(seconds=180)
        stack.check_what_alerts_read()
        print(f"Prometheus has data for {panels} expressions and for what every alert reads", flush=True)
        two_workers_share(stack)
        a_redis_restart_loses_nothing(stack)


def two_workers_share(stack: Stack) -> None:
    subprocess.run([*COMPOSE, "up", "-d", "--wait", "--no-build", "--scale", "worker=2", "worker"], check=True)
    by_worker = "count(sum by (instance) (rate(fourstep_images_total[30s])) > 0)"

    def both_work() -> bool:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(stack.pictures, [8] * 8))
        return [series["value"][1] for series in stack.query(by_worker)] == ["2"]

    wait_until(both_work, 120, lambda: "the second worker gets no work")
    print("two workers share the load", flush=True)


def a_redis_restart_loses_nothing(stack: Stack) -> None:
    jobs = [stack.acknowledged(16) for _ in range(8)]
    subprocess.run([*COMPOSE, "restart", "redis"], check=True)
    ended: dict[str, Any] = {}

    def all_ended() -> bool:
        for job in jobs:
            answer = stack.client.get(f"{stack.api}{job}")
            if answer.is_success and answer.json()["status"] not in ("queued", "running"):
                ended[job] = answer.json()
        return len(ended) == len(jobs)

    wait_until(all_ended, 180, lambda: f"{len(jobs) - len(ended)} of {len(jobs)} jobs never ended")
    for job in ended.values():
        assert (job["status"], len(job["images"])) == ("completed", 16), job["status"]
    print(f"{16 * len(jobs)} acknowledged images outlived a restart of Redis", flush=True)


def _local(variable: str, port: int) -> str:
    return f"http://127.0.0.1:{os.environ.get(variable, port)}"


if __name__ == "__main__":
    main()
