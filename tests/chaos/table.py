"""`python -m tests.chaos.table` writes the table of faults in docs/reliability.md from the verdicts of the trials."""

import json
from collections import Counter
from pathlib import Path
from textwrap import fill
from typing import Any

ROOT = Path(__file__).parents[2]
VERDICTS = {"Redis": ROOT / "bench/results/chaos.json", "a bucket": ROOT / "bench/results/chaos_s3.json"}
FAILOVERS = ROOT / "bench/results/chaos_failover.json"
POWER_CUTS = ROOT / "bench/results/power_cut.json"
ROLLING = ROOT / "bench/results/rolling.json"
PAGE = ROOT / "docs/reliability.md"
WIDTH = 128
BEGIN, END = "<!-- faults: made by python -m tests.chaos.table -->", "<!-- end of faults -->"

SEEN = {
    "worker kill -9": "their images a lease later",
    "one holder killed three times": "their images some leases later",
    "worker stopped past its lease": "their images, made by another worker; the late ones are not stored",
    "worker SIGTERM": "their images; what was begun is finished, the rest handed back",
    "process whose clock is wrong by ten minutes": "nothing",
    "model exchanged under its name": "pictures of one model in each call; 503 `model-changed` for a call in both",
    "records of the previous release": "nothing",
    "API kill -9": "a broken connection; the same call with its key finds its images",
    "API SIGTERM": "503 `server-stopping` after 5 seconds; the same call with its key finds its images",
    "Redis kill -9 and restart": "503 `redis-unavailable` until it is back",
    "Redis kill -9 with a torn append-only file": "503 `redis-unavailable` until it is back",
    "Redis stopped for 7 s": "503 `redis-unavailable` until it goes on",
    "Redis full": "429 `store-full`",
    "image store away for 12 s": "their images when it is back; 503 `image-store-unavailable` for those made before",
    "disk of Redis full": "503 `store-unwritable` until it has room",
    "50 ms more each way": "slower answers",
    "sockets cut": "nothing, or 503 `redis-unavailable` once",
    "primary behind Sentinel kill -9": "503 `redis-unavailable` until another one has its place",
    "old primary that takes writes again": "503 `job-lost` for calls that it took meanwhile",
    "old primary that refuses writes without replicas": "503 `store-unwritable` for a moment",
    "Cluster node kill -9": "503 `redis-unavailable` until its replica has its place",
}


def table() -> str:
    """The table, of what callers see and what is lost at each fault that the trials injected."""
    verdicts = {store: json.loads(path.read_text()) for store, path in VERDICTS.items() if path.exists()}
    lost = "nothing" if all(verdict["holds"] for verdict in verdicts.values()) else "see the verdicts"
    injected = sum((Counter(verdict["injected"]) for verdict in verdicts.values()), Counter[str]())
    rows = [f"| {fault} | {count} | {SEEN[fault]} | {lost} |" for fault, count in sorted(injected.items())]
    rows += [_row_of_failover(verdict) for verdict in _read(FAILOVERS, [])]
    if upgrades := _read(ROLLING, {}):
        rows.append(_row_of_upgrades(upgrades))
    rows += [
        _row_of_power_cut(policy, about) for policy, about in _read(POWER_CUTS, {"policies": {}})["policies"].items()
    ]
    about = [
        f"With images in {store}: of {verdict['acknowledged_images']} acknowledged {verdict['completed']} were made,"
        f" {sum(verdict['honest_errors'].values())} ended with an error that says why, and"
        f" {verdict['solo']} of those in strict mode were compared with the same images made alone."
        for store, verdict in verdicts.items()
    ]
    head = ["| fault | times | callers see | lost |", "|---|---|---|---|"]
    return "\n".join([BEGIN, fill(" ".join(about), WIDTH), "", *head, *rows, END])


def _row_of_failover(verdict: dict) -> str:
    cost = verdict["lost"] + verdict["set_back"]
    lost = f"{cost} of {verdict['acknowledged_images']} images in this run" if cost else "nothing in this run"
    return f"| {verdict['fault']} | 1 | {SEEN[verdict['fault']]} | {lost} |"


def _row_of_upgrades(verdict: dict) -> str:
    lost = "see the verdict" if verdict["wrong"] else f"nothing, of {verdict['images']} images"
    seen = "nothing" if set(verdict["answers"]) == {"200"} else ", ".join(sorted(verdict["answers"]))
    return f"| worker or API exchanged for another release | {verdict['exchanges']} | {seen} | {lost} |"


def _row_of_power_cut(policy: str, about: dict) -> str:
    lost = f"what Redis took in the last {about['longest_s']} s" if about["most_images"] else "nothing"
    return f"| power cut, by `appendfsync {policy}` | measured | 503 `redis-unavailable` until it is back | {lost} |"


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else default


def with_table(page: str) -> str:
    """The page with the table of the verdicts in place of its own."""
    before, _, rest = page.partition(BEGIN)
    return before + table() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
