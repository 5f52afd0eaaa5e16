"""From the raw visits of all rounds to the figures of docs/benchmarks.md."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from statistics import fmean, median
from typing import Any

import numpy as np

from bench.comparison.figures import Answer, block_rates, goodput, interval, shed
from bench.quantiles import METHOD

BLOCKS = 4
Rounds = Sequence[dict[str, Any]]


def summary(rounds: Rounds) -> dict[str, Any]:
    """`rounds` as bench.comparison writes them: per engine the bare engine, and per system its visits."""
    engines = rounds[0]["visits"]
    return {
        engine: {
            "bare": _bare([one["bare"][engine] for one in rounds if engine in one["bare"]]),
            "systems": {name: _system(rounds, engine, name) for name in engines[engine]},
        }
        for engine in engines
    }


def _bare(figures: Rounds) -> dict[str, Any]:
    """Medians over the rounds."""
    if not figures:
        return {}
    counts = figures[0]["alone_s"]
    return {
        "images_per_s": round(median(one["images_per_s"] for one in figures), 3),
        "alone_ms": {count: round(1000 * median(one["alone_s"][count] for one in figures), 1) for count in counts},
    }


def _system(rounds: Rounds, engine: str, name: str) -> dict[str, Any]:
    there = [one for one in rounds if name in one["visits"].get(engine, {})]
    visits = [one["visits"][engine][name] for one in there]
    alone = [seconds for visit in visits for _, _, seconds in visit["alone"]]
    found: dict[str, Any] = {
        "visits": len(visits),
        "first_picture_s": round(median(visit["first_picture_s"] for visit in visits), 1),
        "memory_mib": round(median(visit["memory_mib"] for visit in visits)),
        "alone_ms": _rounded(interval([1000 * seconds for seconds in alone]), 1),
        "images_per_s": {},
    }
    for concurrency in visits[0]["closed"]:
        loops = [visit["closed"][concurrency] for visit in visits]
        rates = [rate for loop in loops for rate in block_rates(loop["finished"], BLOCKS)]
        found["images_per_s"][concurrency] = _rounded(interval(rates), 2)
        found["batches"] = _histogram(loops)  # of the last: at saturation
        found["failed"] = sum(status != 200 for loop in loops for _, status, _ in loop["answers"])
    bares = [one["bare"].get(engine) or one["bare"]["sampler"] for one in there]
    ratios = [_overall(visit) / bare["images_per_s"] for visit, bare in zip(visits, bares, strict=True)]
    found["of_bare_engine"] = round(median(ratios), 3)
    for part in ("replay", "overload"):
        if part in visits[0]:
            found[part] = _open_loop([visit[part] for visit in visits], bares)
    for kind in ("bit_equal", "bit_equal_strict"):
        counts = [visit[kind] for visit in visits if kind in visit]
        if counts:
            found[kind] = {key: sum(count[key] for count in counts) for key in counts[0]}
    return found


def _overall(visit: dict[str, Any]) -> float:
    """Images a second at the highest concurrency."""
    finished = list(visit["closed"].values())[-1]["finished"]
    return len(finished) / max(finished)


def _open_loop(loops: Rounds, bares: Rounds) -> dict[str, Any]:
    """Latencies over all rounds; each round's goodput by its own bare engine."""
    rounds = [[Answer(*answer) for answer in loop["answers"]] for loop in loops]
    answers = [answer for one in rounds for answer in one]
    alone = [{int(count): seconds for count, seconds in bare["alone_s"].items()} for bare in bares]
    images = sum(answer.images for answer in answers)
    in_time = [
        goodput(one, times) * sum(answer.images for answer in one) for one, times in zip(rounds, alone, strict=True)
    ]
    latencies = [1000 * answer.seconds for answer in answers if answer.ok]
    return {
        "calls": len(answers),
        **{
            f"p{round(100 * share)}_ms": _rounded(interval(latencies, partial(np.quantile, q=share, method=METHOD)), 0)
            for share in (0.5, 0.95, 0.99)
            if latencies
        },
        "mean_ms": round(fmean(latencies), 1) if latencies else None,
        "goodput": round(sum(in_time) / images, 3),
        "shed": round(shed(answers), 3),
        "failed": sum(not answer.ok for answer in answers),
        "batches": _histogram(loops),
        "cpu_ms_per_image": round(1000 * median(loop["cpu_s_per_image"] for loop in loops), 1),
    }


def _histogram(loops: Rounds) -> dict[str, int]:
    """Number of batches by their images."""
    total: Counter[str] = sum((Counter(loop["batches"]) for loop in loops), Counter())
    return {size: total[size] for size in sorted(total, key=float)}


def mean_batch(histogram: dict[str, int]) -> float:
    """Images a batch holds on average; a histogram's bucket counts as its upper end."""
    batches = sum(histogram.values())
    return sum(float(size) * count for size, count in histogram.items()) / batches if batches else 0.0


def _rounded(values: Sequence[float], digits: int) -> list[float]:
    return [round(value, digits) for value in values]
