"""The sweep of docs/batching-results.md: rules for the next step, other servers' policies and a bound, by simulation.

`python -m bench.scheduling.policies` writes bench/results/policies.json; then make the page's tables with
`python -m bench.scheduling.tables`. Every cell is one run from one seed, so the same sweep gives the same file.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from bench.scheduling import bound, peers, step_rules
from bench.scheduling.simulation import SIZE, Call, Curve, Device, Policy, Report, Simulation, bursty, calls, poisson
from worker.consumer import MOST_HELD
from worker.engine.scheduler import schedule

RESULTS = Path(__file__).parents[1] / "results" / "policies.json"

CURVES: dict[str, Curve] = {
    "launch-bound": lambda rows: 0.01 * (1 + 0.01 * rows),
    "mixed 0.3": lambda rows: 0.01 * (1 + 0.3 * rows),
    "mixed 1": lambda rows: 0.01 * (1 + rows),
    "compute-bound": lambda rows: 0.01 * rows,
    "slow at 8": partial(np.interp, xp=[1, 2, 4, 8], fp=[0.010, 0.012, 0.015, 0.040]),
}
"""Seconds of a step: "mixed k" is 10 ms · (1 + k · rows)."""

IMAGES = {"1": [1], "1, 2, 4": [1] * 8 + [2, 4], "1 and 16": [1] * 9 + [16], "16": [16]}
"""Images of a call, drawn with equal chances."""

LOADS = {"poisson": (0.3, 0.5, 0.7, 0.9, 0.95), "bursty": (0.5, 0.9)}
ARRIVALS = {"poisson": poisson, "bursty": bursty}

LARGE, SLOWER = (128, 128), 4.0
"""The second image size, and how many times as long its steps take."""

PATIENCE = 3
"""Calls with a deadline want an answer within so many times what an image takes alone."""


@dataclass(frozen=True)
class Cell:
    """One workload: `load` is the share of the capacity at the most efficient batch size."""

    curve: str
    max_batch: int
    pads: bool
    images: str
    load: float
    arrivals: str = "poisson"
    kind: str = "plain"

    def device(self) -> Device:
        slower = {SIZE: 1.0, LARGE: SLOWER} if self.kind == "two sizes" else {SIZE: 1.0}
        return Device(CURVES[self.curve], max_batch=self.max_batch, pads=self.pads, slower=slower)

    def calls(self, count: int) -> list[Call]:
        device, sizes, dice = self.device(), IMAGES[self.images], random.Random(str(self))
        slower = (1 + SLOWER) / 2 if self.kind == "two sizes" else 1.0
        rate = self.load * device.capacity * len(sizes) / sum(sizes) / slower
        made = calls(ARRIVALS[self.arrivals](rate, dice), sizes, count, dice)
        return [KINDS[self.kind](call, device, dice) for call in made]


def _with_deadline(call: Call, device: Device, dice: random.Random) -> Call:
    patience = PATIENCE * device.seconds(1, device.steps, 1)
    return replace(call, deadline=call.time + patience) if dice.random() < 0.25 else call


KINDS: dict[str, Callable[[Call, Device, random.Random], Call]] = {
    "plain": lambda call, device, dice: call,
    "two sizes": lambda call, device, dice: replace(call, size=dice.choice([SIZE, LARGE])),
    "deadlines": _with_deadline,
    "strict": lambda call, device, dice: replace(call, strict=dice.random() < 0.2),
}
"""Properties of some of the calls: every second one large, every fourth with a deadline, every fifth strict."""


def cells() -> Iterator[Cell]:
    mixed = list(product(("launch-bound", "mixed 0.3", "mixed 1"), (8, 16, 32), (True, False)))
    others = [("compute-bound", 8, True), ("slow at 8", 8, True)]
    for device, images, (arrivals, loads) in product([*mixed, *others], IMAGES, LOADS.items()):
        yield from (Cell(*device, images, load, arrivals) for load in loads)
    kinds = [kind for kind in KINDS if kind != "plain"]
    for device, load, kind in product([of for of in mixed if of[1] != 16], (0.5, 0.9), kinds):
        yield Cell(*device, "1, 2, 4", load, "poisson", kind)


FIGURES = ("mean_ms", "p99_ms", "late")
"""Mean and 99th percentile of the latencies, and the share of the calls with a deadline that miss it."""

OURS = "fourstep"
COARSE = "fourstep, padded to powers of two"
RULES = {
    OURS: schedule,
    "least waiting in total": step_rules.least_waiting,
    "greedy": step_rules.greedy,
    "most urgent": step_rules.most_urgent,
    "most images": step_rules.most_images,
}
PEERS = ("image at a time", "call at a time", "batches of images", "batches of calls")


def policies(device: Device, load: float) -> Iterator[tuple[str, Device, Policy]]:
    """Every policy, a peer once for each tuning whose batches can bear the load."""
    for name, rule in RULES.items():
        yield name, device, step_rules.step_level(device, rule)
    if device.pads:
        powers = tuple(rows for rows in device.measured if rows & (rows - 1) == 0)
        coarse = replace(device, batch_sizes=powers)
        yield COARSE, coarse, step_rules.step_level(coarse)
    yield "image at a time", device, peers.image_at_a_time(device)
    yield "call at a time", device, peers.call_at_a_time(device)
    rates = {rows: rows / (device.steps * device.step(rows)) for rows in (2, 4, 8, 16, 32) if rows <= device.max_batch}
    sizes = [rows for rows, rate in rates.items() if rate > load * device.capacity or rows == device.max_batch]
    for rows, wait in product(sizes, (0.0, 2 * device.step(1))):
        yield "batches of images", device, peers.image_batching(device, rows, wait)
        yield "batches of calls", device, peers.call_batching(device, rows, wait)


def figures(cell: Cell, count: int) -> dict[str, Any]:
    """The cell, its bound and the figures of each policy, of each peer the best that any of its tunings gives.

    `count` calls are made, a third of them where all have 16 images, which are more work and steadier.
    """
    made, window = cell.calls(count // 3 if cell.images == "16" else count), 1.5 * cell.max_batch * MOST_HELD
    found: dict[str, list[Report]] = {}
    for name, device, policy in policies(cell.device(), cell.load):
        found.setdefault(name, []).append(Simulation(device, policy, window=window).run(made))
    with_deadline = sum(call.deadline is not None for call in made)
    read = (
        lambda report: round(1000 * report.mean_latency, 2),
        lambda report: round(1000 * report.quantile(0.99), 2),
        lambda report: round(report.late / max(1, with_deadline), 4),
    )
    best = {
        of: {name: min(map(figure, reports)) for name, reports in found.items()}
        for of, figure in zip(FIGURES, read, strict=True)
    }
    return {**asdict(cell), "bound_ms": round(1000 * bound.least_mean_latency(cell.device(), made), 2), **best}


def sweep(chosen: Sequence[Cell], count: int) -> list[dict[str, Any]]:
    with Pool() as pool:
        found = pool.imap(partial(figures, count=count), chosen, 4)
        return list(track(found, "simulating", len(chosen)))


def write(found: Sequence[dict[str, Any]], count: int, path: Path = RESULTS) -> None:
    """Write the cells, each figure as a list in the order of the policies."""
    names = list(dict.fromkeys(name for cell in found for name in cell["mean_ms"]))
    lists = [{**cell, **{of: [cell[of].get(name) for name in names] for of in FIGURES}} for cell in found]
    lines = ",\n".join(map(json.dumps, lists))
    path.write_text(f'{{"calls": {count}, "policies": {json.dumps(names)}, "cells": [\n{lines}\n]}}\n')


def read(path: Path = RESULTS) -> tuple[list[dict[str, Any]], int]:
    """Return what `write` was given: each cell's figures by policy, and the number of calls."""
    report = json.loads(path.read_text())
    for cell in report["cells"]:
        for of in FIGURES:
            named = zip(report["policies"], cell[of], strict=True)
            cell[of] = {name: figure for name, figure in named if figure is not None}
    return report["cells"], report["calls"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=600, help="in a cell")
    options.add_argument("--out", type=Path, default=RESULTS)
    arguments = options.parse_args()
    write(sweep(list(cells()), arguments.calls), arguments.calls, arguments.out)


if __name__ == "__main__":
    main()
