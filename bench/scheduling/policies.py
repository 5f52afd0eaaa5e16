"""The sweep of docs/batching.md: the scheduler against first-come-first-served and request batching, by simulation.

`python -m bench.scheduling.policies` prints the table; with --json it is kept under bench/results/.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rich.progress import track

from bench.scheduling.simulation import (
    Curve,
    Device,
    Policy,
    Report,
    Simulation,
    bursty,
    image_at_a_time,
    jobs,
    poisson,
    request_at_a_time,
    request_batching,
    step_level,
)

CURVES: dict[str, Curve] = {
    "launch-bound": lambda rows: 1 + 0.01 * rows,
    "mixed 0.1": lambda rows: 1 + 0.1 * rows,
    "mixed 0.3": lambda rows: 1 + 0.3 * rows,
    "mixed 1": lambda rows: 1.0 + rows,
    "compute-bound": lambda rows: float(rows),
    "slow at 8": partial(np.interp, xp=[1, 2, 4, 8], fp=[1.0, 1.2, 1.5, 4.0]),
}
"""t(b) in units of the overhead of a step; "mixed k" is 1 + k·b."""

JOB_SIZES = {"1": [1], "16": [16], "1 and 16": [1] * 9 + [16]}
LOADS = (0.3, 0.5, 0.7, 0.9)
ARRIVALS = {"poisson": poisson, "bursty": bursty}


@dataclass(frozen=True)
class Case:
    """One workload: `load` is the share of the capacity at the most efficient batch size."""

    curve: str
    job_size: str
    load: float
    arrivals: str = "poisson"
    pads: bool = True


def cases(arrivals: str = "poisson", pads: bool = True) -> list[Case]:
    return [Case(curve, sizes, load, arrivals, pads) for curve in CURVES for sizes in JOB_SIZES for load in LOADS]


def compare(case: Case, count: int, seed: int = 0) -> dict[str, Report]:
    """The same arrivals under each policy."""
    device, sizes = Device(CURVES[case.curve], pads=case.pads), JOB_SIZES[case.job_size]
    dice = random.Random(seed)
    rate = case.load * device.capacity * len(sizes) / sum(sizes)
    arrivals = jobs(ARRIVALS[case.arrivals](rate, dice), sizes, count, dice)
    return {name: Simulation(device, policy).run(arrivals) for name, policy in policies(device)}


def policies(device: Device) -> Iterator[tuple[str, Policy]]:
    yield "plan", step_level(device)
    yield "image at a time", image_at_a_time(device)
    yield "request at a time", request_at_a_time(device)
    yield "request batching", request_batching(device)
    yield "request batching, waits 2 steps", request_batching(device, 2 * device.step(1))


def ratio(reports: dict[str, Report], share: float) -> float:
    """The scheduler's latency at quantile `share`, over the best of the others at that quantile."""
    others = [report.quantile(share) for name, report in reports.items() if name != "plan"]
    return reports["plan"].quantile(share) / min(others)


def figures(case: Case, count: int, seed: int) -> dict[str, Any]:
    """One case's row of the table."""
    reports = compare(case, count, seed)
    ours = reports["plan"]
    best = {
        share: min((r.quantile(share), name) for name, r in reports.items() if name != "plan") for share in (0.5, 0.99)
    }
    return {
        **case.__dict__,
        "p50_ratio": round(ratio(reports, 0.5), 3),
        "p99_ratio": round(ratio(reports, 0.99), 3),
        "p50": round(ours.quantile(0.5), 2),
        "p99": round(ours.quantile(0.99), 2),
        "mean_batch": round(ours.mean_batch, 2),
        "best_p50": best[0.5][1],
        "best_p99": best[0.99][1],
        "mean_ratio": round(ours.mean_latency / min(r.mean_latency for n, r in reports.items() if n != "plan"), 3),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--arrivals", choices=ARRIVALS, default="poisson")
    options.add_argument(
        "--unpadded", action="store_true", help="a device that runs any number of rows, as eager code does"
    )
    options.add_argument("--json", help="write the figures to this file")
    arguments = options.parse_args()
    rows = []
    for case in track(cases(arguments.arrivals, not arguments.unpadded), "simulating"):
        # Sixteen images are four times the work of the mixture, and steadier.
        count = arguments.jobs // 4 if case.job_size == "16" else arguments.jobs
        rows.append(row := figures(case, count, arguments.seed))
        missed = "  missed" if max(row["p50_ratio"], row["p99_ratio"]) > 1.05 else ""
        print(*(f"{value!s:>18}" for value in list(row.values())[:10]), missed, flush=True)
    if arguments.json:
        with open(arguments.json, "w") as file:
            file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
