"""Checks a running compose stack, as `make check-compose` does: pictures, metrics, two workers, a Redis restart.

Run from the repository's root, with COMPOSE set to the compose command and its files.
"""

import base64
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.operations import expressions

COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
API = f"http://127.0.0.1:{os.environ.get('HTTP_PORT', '8000')}"
PROMETHEUS = f"http://127.0.0.1:{os.environ.get('PROMETHEUS_PORT', '9090')}"
NEEDS_A_FAULT_OR_A_GPU = ("graph_replays", "graph_misses", 'outcome="shed"')
"""Panels of these stay empty while all is well on a CPU."""


def main() -> None:
    with httpx.Client(timeout=120, trust_env=False) as client:
        pictures(client, 4)
        print("a picture comes back")
        every_panel_has_data(client)
        two_workers_share(client)
        a_redis_restart_loses_nothing(client)


def pictures(client: httpx.Client, count: int) -> None:
    answer = client.post(f"{API}/generate", json={"prompt": "a smiling cat face", "num_images": count})
    answer.raise_for_status()
    for image in answer.json()["images"]:
        assert base64.b64decode(image["b64"]).startswith(b"\x89PNG")


def every_panel_has_data(client: httpx.Client) -> None:
    """Keeps calling, well and badly, until Prometheus answers each expression that a healthy stack can fill."""
    wanted = {
        name: expression
        for name, expression in expressions.panel_expressions().items()
        if not any(part in expression for part in NEEDS_A_FAULT_OR_A_GPU)
    }
    empty = dict(wanted)

    def filled() -> bool:
        pictures(client, 4)
        assert client.post(f"{API}/generate", json={"prompt": ""}).status_code == 422
        listen(client)
        for name in [name for name, expression in empty.items() if query(client, expression)]:
            del empty[name]
        return not empty

    wait_until(filled, 180, lambda: f"no data for {sorted(empty)}")
    for name, expression in expressions.rule_expressions().items():
        for metric in expressions.metric_names(expression):
            healthy = not any(part in metric for part in NEEDS_A_FAULT_OR_A_GPU)
            assert not healthy or query(client, metric), f"{name}: no series of {metric}"
    print(f"Prometheus has data for {len(wanted)} panels and for what every alert reads")


def listen(client: httpx.Client) -> None:
    """Follow a job's events to its end, so that previews are asked for."""
    location = acknowledged(client, 2)
    with client.stream("GET", f"{API}{location}/events") as events:
        for _ in events.iter_lines():
            pass


def two_workers_share(client: httpx.Client) -> None:
    subprocess.run([*COMPOSE, "up", "-d", "--wait", "--no-build", "--scale", "worker=2", "worker"], check=True)
    by_worker = "count(sum by (instance) (rate(fourstep_images_total[30s])) > 0)"

    def both_work() -> bool:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: pictures(client, 8), range(8)))
        return [series["value"][1] for series in query(client, by_worker)] == ["2"]

    wait_until(both_work, 120, lambda: "the second worker gets no work")
    print("two workers share the load")


def a_redis_restart_loses_nothing(client: httpx.Client) -> None:
    jobs = [acknowledged(client, 16) for _ in range(8)]
    subprocess.run([*COMPOSE, "restart", "redis"], check=True)
    ended: dict[str, Any] = {}

    def all_ended() -> bool:
        for job in jobs:
            answer = client.get(f"{API}{job}")
            if answer.is_success and answer.json()["status"] not in ("queued", "running"):
                ended[job] = answer.json()
        return len(ended) == len(jobs)

    wait_until(all_ended, 180, lambda: f"{len(jobs) - len(ended)} of {len(jobs)} jobs never ended")
    for job in ended.values():
        assert (job["status"], len(job["images"])) == ("completed", 16), job["status"]
    print(f"{16 * len(jobs)} acknowledged images outlived a restart of Redis")


def acknowledged(client: httpx.Client, count: int) -> str:
    body = {"prompt": "a red apple", "num_images": count, "response": "url", "timeout": 300}
    answer = client.post(f"{API}/generate", json=body, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def query(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = client.get(f"{PROMETHEUS}/api/v1/query", params={"query": expression})
    answer.raise_for_status()
    return answer.json()["data"]["result"]


def wait_until(holds: Callable[[], bool], seconds: float, else_say: Callable[[], str]) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up:
            sys.exit(else_say())
        time.sleep(1)


if __name__ == "__main__":
    main()
