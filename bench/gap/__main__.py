"""The host's time between two steps of a busy worker, and a trace against its simulation; part of `make bench-engine`.

A whole worker with the network of bench.engine.latency_model behind Redis and the API, all on this machine. A gap is
the time from the end of one call of the network to the begin of the next, while more images wait than a step holds.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bench import results_file
from bench.comparison import trace
from bench.comparison.client import Client
from bench.comparison.systems import SYSTEMS
from bench.peers.latency_engine import FIXED_S, PER_ROW_S, STEPS
from bench.quantiles import quantile
from bench.scheduling.simulation import Call, Device, Simulation
from bench.scheduling.step_rules import step_level
from bench.service.front_end import front_end

CALLS, LOAD = 240, 0.7
WARM_UP_CALLS = 24
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


Stamp = tuple[float, float, int]
"""Begin and end of a call of the network, in seconds of time.perf_counter, and its rows."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gap", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--steps", type=int, default=400, help="steps of each size whose gaps count, about")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the trace")
    parser.add_argument("--out", default="step_gap", help="name of the file in bench/results")
    options = parser.parse_args()
    gap_ms = {str(rows): gaps(rows, options.steps) for rows in options.rows}
    runs = [traced() for _ in range(options.repeats)]
    ratios = {
        name: round(median(run["real_ms"][name] / run["simulated_ms"][name] for run in runs), 3)
        for name in ("p50", "p95", "p99")
    }
    figures = {"gap_ms": gap_ms, "trace": runs, "trace_over_simulation": ratios}
    results_file.write(options.out, figures)
    print(json.dumps(figures, indent=2))


def gaps(rows: int, steps: int) -> dict[str, float]:
    """Quantiles in milliseconds of the gaps before steps of `rows` rows, with twice as many callers."""
    calls = trace.singles(steps * rows // STEPS, rows)
    with _worker(rows) as (port, stamps):
        asyncio.run(_client(port).closed_loop(trace.singles(WARM_UP_CALLS, -1), WARM_UP_CALLS))
        began = time.perf_counter()
        asyncio.run(_client(port).closed_loop(calls, 2 * rows))
        ended = time.perf_counter()
    found = list(_gaps(stamps, began, ended, rows))
    return {"steps": len(found), **_quantiles(found)}


def _gaps(stamps: Sequence[Stamp], began: float, ended: float, rows: int) -> Iterator[float]:
    for (_, end, _), (begin, _, next_rows) in pairwise(stamps):
        if began < end and begin < ended and next_rows == rows:
            yield begin - end


def traced() -> dict[str, Any]:
    """Latencies of the recorded trace through HTTP, and in a simulation without any cost beside the steps, which take
    as long as they took asleep."""
    calls = trace.load()[:CALLS]
    nominal = Device(_sleep_s, steps=STEPS, pads=False)
    rate = LOAD * nominal.capacity
    with _worker(nominal.max_batch) as (port, stamps):
        asyncio.run(_client(port).closed_loop(trace.singles(WARM_UP_CALLS, -1), WARM_UP_CALLS))
        alone = [answer.seconds for answer in asyncio.run(_client(port).closed_loop(trace.singles(20, -2), 1))[0]]
        answers = asyncio.run(_client(port).replay(calls, rate, alone_s=60.0))
    assert all(answer.ok for answer in answers)
    overslept_s = median(end - begin - _sleep_s(rows) for begin, end, rows in stamps)
    device = replace(nominal, step=lambda rows: _sleep_s(rows) + overslept_s)
    simulated = Simulation(device, step_level(device)).run([Call(call.at / rate, call.images) for call in calls])
    return {
        "load_images_per_s": round(rate, 2),
        "overslept_ms": round(1000 * overslept_s, 3),
        "alone_ms": round(1000 * median(alone), 2),
        "real_ms": _quantiles([answer.seconds for answer in answers]),
        "simulated_ms": _quantiles(simulated.latencies),
    }


def _sleep_s(rows: int) -> float:
    """Seconds that a step of `rows` sleeps, if the system wakes it in time."""
    return FIXED_S + PER_ROW_S * rows


@contextmanager
def _worker(max_batch: int) -> Iterator[tuple[int, list[Stamp]]]:
    """The port of the API, and a list of the worker's steps, which is filled when the block has ended."""
    with tempfile.TemporaryDirectory() as folder:
        file, stamps = Path(folder) / "stamps", list[Stamp]()
        os.environ |= {"FOURSTEP_MAX_BATCH": str(max_batch), "FOURSTEP_CPU_RUNTIME": "torch"}
        times = ["--fixed", str(FIXED_S), "--per-row", str(PER_ROW_S), "--stamps", str(file)]
        with front_end(["bench.engine.latency_model", *times]) as stack:
            yield stack.port, stamps
        stamps += [json.loads(line) for line in file.read_text().splitlines()]


def _client(port: int) -> Client:
    """A client for one event loop, to which its connections belong."""
    return Client(SYSTEMS["fourstep"], port)


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    return {name: round(1000 * quantile(seconds, share), 3) for name, share in SHARES.items()}


if __name__ == "__main__":
    main()
