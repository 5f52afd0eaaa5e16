"""Check a running compose stack, as `make check-compose` does: rights of the containers, pictures, metrics, two
workers, a restart of Redis and an exchange of the workers amid jobs.

Run from the repository's root, with COMPOSE set to the compose command and its files.
"""

import json
import os
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import httpx

from jobs.testing.waiting import block_until
from tests.operations.live_panels import Stack

COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
UP_TWO = ("up", "-d", "--wait", "--no-build", "--scale", "worker=2")
LEAST_SHARE = 0.25
"""Least share of the images that each of two workers makes."""
INSIDE = """
id -u
sed -nE 's/^(CapEff|NoNewPrivs):\\s*//p' /proc/self/status
cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes
touch /probe 2>/dev/null && echo writable || echo read-only
"""


def main() -> None:
    with httpx.Client(timeout=120, trust_env=False) as client:
        stack = Stack(client, _local("HTTP_PORT", 8000), _local("PROMETHEUS_PORT", 9090))
        containers_are_confined()
        stack.pictures(4)
        print("pictures come back", flush=True)
        panels, rules = stack.fill_every_panel(seconds=300), stack.check_rules(seconds=60)
        print(f"Prometheus has data for {panels} expressions of panels and {rules} of rules and alerts", flush=True)
        rate = two_workers_share(stack)
        nothing_is_lost(stack, rate, "a restart of Redis", "restart", "redis")
        nothing_is_lost(stack, rate, "an exchange of both workers", *UP_TWO, "--no-deps", "--force-recreate", "worker")


def containers_are_confined() -> None:
    """Check that containers are healthy, read-only and bounded in memory, without root, capabilities and privileges."""
    wanted = json.loads(_compose("config", "--format", "json"))["services"]
    running = [json.loads(line) for line in _compose("ps", "--format", "json").splitlines()]
    for container in running:
        name = container["Service"]
        user, capabilities, no_new_privileges, memory, root = _inside(name)
        limit = int(wanted[name]["deploy"]["resources"]["limits"]["memory"])
        assert container["Health"] == "healthy", container
        assert user != "0", name
        assert {int(capabilities, 16), int(no_new_privileges) - 1} == {0}, name
        assert (int(memory), root) == (limit, "read-only"), (name, memory, limit, root)
        print(f"{name}: healthy, user {user}, {limit >> 20} MiB at most, no capabilities, read-only", flush=True)
    assert {container["Service"] for container in running} >= {"redis", "service", "worker", "prometheus"}


def _inside(service: str) -> tuple[str, str, str, str, str]:
    """User, capabilities, whether new privileges are ruled out, bytes of memory, and the state of the root folder."""
    user, capabilities, no_new_privileges, memory, root = _compose("exec", "-T", service, "sh", "-c", INSIDE).split()
    return user, capabilities, no_new_privileges, memory, root


def two_workers_share(stack: Stack) -> float:
    """Check that two workers share the work; return their images a second, together."""
    _compose(*UP_TWO, "worker")
    block_until(
        lambda: len(stack.query('up{job="worker"} == 1')) == 2, "Prometheus does not see the second worker", pause_s=1
    )
    before, images, began = stack.images_by_worker(), 128, time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(stack.pictures, [4] * (images // 4)))
    rate = images / (time.monotonic() - began)

    def shares() -> list[float]:
        return sorted((count - before.get(name, 0)) / images for name, count in stack.images_by_worker().items())

    block_until(lambda: sum(shares()) > 0.999, lambda: f"the workers report {shares()} of {images} images", pause_s=1)
    assert len(shares()) == 2, shares()
    assert shares()[0] >= LEAST_SHARE, shares()
    print(
        f"two workers share {images} images, {shares()[0]:.0%} and {shares()[1]:.0%}: {rate:.1f} a second", flush=True
    )
    return rate


def nothing_is_lost(stack: Stack, rate: float, event: str, *command: str) -> None:
    """Check that all jobs acknowledged before `event` complete after it, each image once and fit to be fetched.

    `rate`, in images a second, is for as much work as is not done before the `command` has its effect.
    """
    jobs = [stack.acknowledged(16) for _ in range(min(30, max(4, round(20 * rate / 16))))]
    unfinished = sum(stack.job(job)["status"] != "completed" for job in jobs)
    assert unfinished > len(jobs) / 2, f"the workers are through before {event}"
    _compose(*command)
    ended: dict[str, dict[str, Any]] = {}

    def all_ended() -> bool:
        for job in jobs:
            answer = stack.client.get(f"{stack.api}{job}")
            if answer.is_success and answer.json()["status"] not in ("queued", "running"):
                ended[job] = answer.json()
        return len(ended) == len(jobs)

    block_until(all_ended, lambda: f"{len(jobs) - len(ended)} of {len(jobs)} jobs never ended", 300, pause_s=1)
    for job in ended.values():
        assert job["status"] == "completed", job
        assert [image["index"] for image in job["images"]] == list(range(16)), job
        for image in job["images"]:
            data = stack.client.get(httpx.URL(stack.api).join(image["url"])).raise_for_status().content
            assert sha256(data).hexdigest() == image["sha256"]
    print(f"{16 * len(jobs)} acknowledged images outlived {event} amid {unfinished} jobs", flush=True)


def _compose(*arguments: str) -> str:
    return subprocess.run([*COMPOSE, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def _local(variable: str, port: int) -> str:
    return f"http://127.0.0.1:{os.environ.get(variable, port)}"


if __name__ == "__main__":
    main()
