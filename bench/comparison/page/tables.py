"""The tables of docs/benchmarks.md, each from the figures of a run."""

from typing import Any

from bench.comparison.aims import OURS
from bench.comparison.crash import RECOVERY_S
from bench.comparison.summary import mean_batch
from bench.markdown import table

ENGINES = {
    "sampler": "our sampler",
    "diffusers": "diffusers' pipeline",
    "latency-model": "latency model",
}
NOT_MEASURED = "not measured"


def bare(figures: dict[str, Any], teacher: dict[str, Any]) -> str:
    rows = []
    for engine, about in figures.items():
        if bare := about["bare"]:
            alone = " / ".join(f"{bare['alone_ms'][count]:g}" for count in ("1", "2", "4"))
            rows.append([ENGINES[engine], f"{bare['images_per_s']:.2f}", f"{alone} ms"])
    rows.append([f"the teacher ({teacher['evaluations']} evaluations)", f"{teacher['images_per_s']:.2f}", "–"])
    return table(["engine in a loop, no server", "images/s", "1 / 2 / 4 images alone"], rows)


def aims(found: list[dict[str, Any]], timed: bool) -> str:
    if not timed:
        found = [aim if aim["counted"] else {**aim, "value": None, "met": None} for aim in found]
    words = {True: "met", False: "**missed**", None: NOT_MEASURED}
    values = [NOT_MEASURED if aim["value"] is None else f"{aim['value']:g}" for aim in found]
    rows = [[aim["what"], aim["target"], value, words[aim["met"]]] for aim, value in zip(found, values, strict=True)]
    return table(["aim", "", "measured", ""], rows)


def speed(figures: dict[str, Any], engine: str) -> str:
    systems = figures.get(engine, {}).get("systems")
    if not systems:
        return NOT_MEASURED
    concurrencies = list(next(iter(systems.values()))["images_per_s"])
    at_saturation = (f"images/s at {count}" for count in concurrencies)
    head = ["", "alone, ms", *at_saturation, "÷ bare", "p50", "p95", "p99, ms", "in time"]
    rows = []
    for name, one in systems.items():
        rates = [_with_interval(one["images_per_s"][count], 1) for count in concurrencies]
        replay = one["replay"]
        late = [f"{replay[share][0]:.0f}" for share in ("p50_ms", "p95_ms")]
        p99 = _with_interval(replay["p99_ms"], 0)
        start = [bold(name), f"{one['alone_ms'][0]:.0f}", *rates, f"{one['of_bare_engine']:.2f}"]
        rows.append([*start, *late, p99, f"{100 * replay['goodput']:.0f}%"])
    return table(head, rows)


def overload(figures: dict[str, Any]) -> str:
    rows = []
    for name, one in figures["sampler"]["systems"].items():
        if found := one.get("overload"):
            shares = (f"{100 * found[key]:.0f}%" for key in ("goodput", "shed"))
            rows.append([bold(name), *shares, f"{found['p99_ms'][0]:.0f}"])
    return table(["", "in time", "shed", "p99 of the answered, ms"], rows) if rows else NOT_MEASURED


def batches(figures: dict[str, Any]) -> str:
    rows = []
    for engine, about in figures.items():
        for name, one in about["systems"].items():
            at_load = one["replay"]["batches"]
            shares = ", ".join(f"{size}: {count}" for size, count in at_load.items())
            means = [f"{mean_batch(one['batches']):.1f}", f"{mean_batch(at_load):.1f}"]
            rows.append([ENGINES[engine], bold(name), *means, shares])
    return table(
        ["engine", "", "mean at saturation", "mean at the trace", "batches of the trace (size: how many)"], rows
    )


def resources(figures: dict[str, Any], lines: dict[str, int], timed: bool) -> str:
    rows = []
    for name, one in figures["sampler"]["systems"].items():
        times = [f"{one['first_picture_s']:.1f}", f"{one['replay']['cpu_ms_per_image']:.0f}"] if timed else []
        rows.append([bold(name), f"{one['memory_mib']:.0f}", str(lines[name]), *times])
    heads = ["start to first picture, s", "CPU per image, ms"] if timed else []
    return table(["", "memory, MiB", "lines of user code", *heads], rows)


def equality(figures: dict[str, Any]) -> str:
    rows = []
    for engine, about in figures.items():
        for name, one in about["systems"].items():
            for kind, label in (("bit_equal", name), ("bit_equal_strict", f"{name}, strict")):
                if kind in one:
                    count = one[kind]
                    share = f"{100 * count['equal'] / count['asked']:.0f}%"
                    rows.append([ENGINES[engine], bold(label), share, f"{count['equal']} of {count['asked']}"])
    return table(["engine", "", "equal to solo", ""], rows)


def crash(trials: dict[str, Any] | None) -> str:
    if trials is None:
        return NOT_MEASURED
    rows = []
    for name, one in trials["systems"].items():
        seconds = one["serves_again_s"]
        again = (
            f"not within {RECOVERY_S:g} s" if seconds is None else "yes" if trials["shared"] else f"after {seconds:g} s"
        )
        rows.append([bold(name), str(one["calls"]), str(one["lost"]), str(one["duplicated"]), again])
    shown = table(["", "calls", "lost", "duplicated", "serves again by itself"], rows)
    shared = "\n\nThe machine had other work to do meanwhile, so a system may come back sooner on a quiet one."
    return shown + shared if trials["shared"] else shown


def tuning(grids: dict[str, Any] | None, used: dict[str, Any]) -> str:
    if grids is None:
        rows = [
            [ENGINES[engine], name, point(used_point), "default"]
            for engine, names in used.items()
            for name, used_point in names.items()
        ]
        return table(["engine", "", "batch size, wait", ""], rows)
    rows = []
    for engine, systems in grids.items():
        if engine != "machine":
            for name, found in systems.items():
                for tried in found["grid"]:
                    chosen = "chosen" if tried["tuning"] == found["chosen"] else ""
                    speed = [f"{tried['images_per_s']:.1f}", f"{1000 * tried['p99_s']:.0f}"]
                    rows.append([ENGINES[engine], name, point(tried["tuning"]), *speed, chosen])
    return table(["engine", "", "batch size, wait", "images/s at 16", "p99, ms", ""], rows)


def point(tuning: dict[str, Any]) -> str:
    return f"{tuning['batch_size']}, {1000 * tuning['wait_s']:g} ms"


def profile(samples: dict[str, Any] | None) -> str:
    if samples is None:
        return NOT_MEASURED
    rows = [
        [thread, stage, f"{100 * share:.1f}%"]
        for thread in ("drawing thread", "beside it")
        for stage, share in samples[thread].items()
    ]
    return table(["", "", "of the drawing thread's samples"], rows)


def bold(name: str) -> str:
    return f"**{name}**" if name.startswith(OURS) else name


def _with_interval(values: list[float], digits: int) -> str:
    middle, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low}–{high})"
