"""docs/benchmarks.md and its plots, from the JSON alone: `python -m bench.comparison.page` (with --plots, those too).

The prose is in page_template.md; every figure in it is filled in here.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

from bench import results_file
from bench.comparison.aims import OURS, aims, no_crash
from bench.comparison.crash import RECOVERY_S
from bench.comparison.figures import SLO
from bench.comparison.summary import mean_batch, summary
from bench.comparison.systems import BATCH_SIZES, WAITS_S, Tuning
from bench.comparison.trace import CALLS, DEADLINE
from bench.comparison.user_lines import counted
from bench.comparison.visit import LOAD, OVERLOAD
from bench.peers.latency_engine import FIXED_S, PER_ROW_S, STEPS

TEMPLATE = Path(__file__).parent / "page_template.md"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
ENGINES = {
    "sampler": "our sampler",
    "diffusers": "diffusers' pipeline",
    "latency-model": "latency model",
}
NOT_MEASURED = "not measured"
UNTOLD = "not told: they need a machine without other work"
PLOTS = """![Images a second at saturation](images/benchmarks-throughput.png)

![Latency of the trace](images/benchmarks-latency.png)"""


def page(results: Path = results_file.RESULTS) -> str:
    """The whole page; what has not been run yet is said to be not measured."""
    crash = _optional(results, "comparison_crash")
    always = {
        "calls": CALLS,
        "deadline": f"{DEADLINE:g}",
        "load": f"{100 * LOAD:.0f}%",
        "overload": f"{100 * OVERLOAD:.0f}%",
        "fixed_ms": f"{1000 * FIXED_S:g}",
        "per_row_ms": f"{1000 * PER_ROW_S:g}",
        "steps": STEPS,
        "batch_sizes": _listed(BATCH_SIZES),
        "waits_ms": _listed([f"{1000 * wait:g}" for wait in WAITS_S]),
        "slo": f"{SLO:g}",
        "crash": _crash(crash),
        "profile": _profile(_optional(results, "comparison_profile")),
        "gpu": _gpu(_optional(results, "gpu")),
    }
    comparison = _optional(results, "comparison")
    run = _measured(results, comparison, crash) if comparison else _without_run(crash)
    return Template(TEMPLATE.read_text()).substitute(always | run)


def _without_run(crash: dict[str, Any] | None) -> dict[str, str]:
    """What the page says before the first run: lines of code are counted, and aims that trials settle are judged."""
    timed = ("bare", "sampler", "diffusers", "latency_model", "overload_table", "batches", "equality", "tuning")
    lines = [[_bold(name), str(count)] for name, count in counted().items()]
    settled = [asdict(no_crash(crash))] if crash else []
    left = "Every other aim waits for a run on a machine without other work."
    return dict.fromkeys(timed, NOT_MEASURED) | {
        "origin": "No run of the whole on a machine without other work has been committed yet.",
        "tuned": "",
        "plots": "",
        "aims": f"{_aims(settled, timed=False)}\n\n{left}",
        "resources": table(["", "lines of user code"], lines),
    }


def _measured(results: Path, comparison: dict[str, Any], crash: dict[str, Any] | None) -> dict[str, str]:
    rounds = json.loads((results / "comparison_rounds.json").read_text())
    figures, teacher, timed = summary(rounds), rounds[-1]["teacher"], not comparison["shared"]
    versions = ", ".join(f"{name} {version}" for name, version in comparison["versions"].items())
    run = f"Made by {_run(comparison, len(rounds))}, on {_machine(comparison['machine'])}. {_quiet(comparison)}"
    return {
        "origin": f"{run}\n\nVersions: {versions}.",
        "tuned": _tuned(comparison),
        "bare": _bare(figures, teacher) if timed else UNTOLD,
        "aims": _aims(aims(figures, teacher, crash), timed),
        "sampler": _speed(figures, "sampler") if timed else UNTOLD,
        "plots": PLOTS if timed else "",
        "diffusers": _speed(figures, "diffusers") if timed else UNTOLD,
        "latency_model": _speed(figures, "latency-model") if timed else UNTOLD,
        "overload_table": _overload(figures) if timed else UNTOLD,
        "batches": _batches(figures) if timed else UNTOLD,
        "resources": _resources(figures, comparison["user_lines"], timed),
        "equality": _equality(figures),
        "tuning": _tuning(_optional(results, "comparison_tuning"), comparison["tuning"]),
    }


def _run(comparison: dict[str, Any], rounds: int) -> str:
    kinds = {"full": f"`make bench`, {rounds} rounds", "quick": f"`make bench QUICK=1`, {rounds} short round"}
    return f"{kinds[comparison['variant']]}, {comparison['minutes']:g} minutes"


def _quiet(comparison: dict[str, Any]) -> str:
    if not comparison["shared"]:
        return "Nothing else ran on the machine."
    return (
        f"**The machine had other work to do meanwhile**, so counts and memory are told here, and times are {UNTOLD}."
    )


def _tuned(comparison: dict[str, Any]) -> str:
    if comparison["tuned_by_grid"]:
        return "The points kept are in the grid below."
    return f"**This run is not tuned:** all of them are at batch size and wait {_point(vars(Tuning()))}."


def _machine(facts: dict[str, Any]) -> str:
    has = {"avx512": "AVX512", "avx512_bf16": "AVX512-BF16", "amx": "AMX"}
    flags = ", ".join(f"{label} {'yes' if facts[name] else 'no'}" for name, label in has.items() if name in facts)
    system = f"Python {facts['python']}, torch {facts['torch']} on one thread"
    return f"{facts['cores']} cores of an {facts['cpu_model']} ({facts['cpu']}; {flags}), {system}"


def _bare(figures: dict[str, Any], teacher: dict[str, Any]) -> str:
    rows = []
    for engine, about in figures.items():
        if bare := about["bare"]:
            alone = " / ".join(f"{bare['alone_ms'][count]:g}" for count in ("1", "2", "4"))
            rows.append([ENGINES[engine], f"{bare['images_per_s']:.2f}", f"{alone} ms"])
    rows.append([f"the teacher ({teacher['evaluations']} evaluations)", f"{teacher['images_per_s']:.2f}", "–"])
    return table(["engine in a loop, no server", "images/s", "1 / 2 / 4 images alone"], rows)


def _aims(found: list[dict[str, Any]], timed: bool) -> str:
    if not timed:
        found = [aim if aim["counted"] else {**aim, "value": None, "met": None} for aim in found]
    words = {True: "met", False: "**missed**", None: NOT_MEASURED}
    values = [NOT_MEASURED if aim["value"] is None else f"{aim['value']:g}" for aim in found]
    rows = [[aim["what"], aim["target"], value, words[aim["met"]]] for aim, value in zip(found, values, strict=True)]
    return table(["aim", "", "measured", ""], rows)


def _speed(figures: dict[str, Any], engine: str) -> str:
    systems = figures.get(engine, {}).get("systems")
    if not systems:
        return NOT_MEASURED
    concurrencies = list(next(iter(systems.values()))["images_per_s"])
    head = [
        "",
        "alone, ms",
        *(f"images/s at {count}" for count in concurrencies),
        "÷ bare",
        "p50",
        "p95",
        "p99, ms",
        "in time",
    ]
    rows = []
    for name, one in systems.items():
        rates = [_with_interval(one["images_per_s"][count], 1) for count in concurrencies]
        replay = one["replay"]
        late = [f"{replay[share][0]:.0f}" for share in ("p50_ms", "p95_ms")]
        p99 = _with_interval(replay["p99_ms"], 0)
        start = [_bold(name), f"{one['alone_ms'][0]:.0f}", *rates, f"{one['of_bare_engine']:.2f}"]
        rows.append([*start, *late, p99, f"{100 * replay['goodput']:.0f}%"])
    return table(head, rows)


def _overload(figures: dict[str, Any]) -> str:
    rows = [
        [
            _bold(name),
            *(f"{100 * one['overload'][key]:.0f}%" for key in ("goodput", "shed")),
            f"{one['overload']['p99_ms'][0]:.0f}",
        ]
        for name, one in figures["sampler"]["systems"].items()
        if "overload" in one
    ]
    return table(["", "in time", "shed", "p99 of the answered, ms"], rows) if rows else NOT_MEASURED


def _batches(figures: dict[str, Any]) -> str:
    rows = []
    for engine, about in figures.items():
        for name, one in about["systems"].items():
            at_load = one["replay"]["batches"]
            shares = ", ".join(f"{size}: {count}" for size, count in at_load.items())
            means = [f"{mean_batch(one['batches']):.1f}", f"{mean_batch(at_load):.1f}"]
            rows.append([ENGINES[engine], _bold(name), *means, shares])
    return table(
        ["engine", "", "mean at saturation", "mean at the trace", "batches of the trace (size: how many)"], rows
    )


def _resources(figures: dict[str, Any], lines: dict[str, int], timed: bool) -> str:
    rows = []
    for name, one in figures["sampler"]["systems"].items():
        told = [f"{one['first_picture_s']:.1f}", f"{one['replay']['cpu_ms_per_image']:.0f}"] if timed else []
        rows.append([_bold(name), f"{one['memory_mib']:.0f}", str(lines[name]), *told])
    times = ["start to first picture, s", "CPU per image, ms"] if timed else []
    return table(["", "memory, MiB", "lines of user code", *times], rows)


def _equality(figures: dict[str, Any]) -> str:
    rows = []
    for engine, about in figures.items():
        for name, one in about["systems"].items():
            for kind, label in (("bit_equal", name), ("bit_equal_strict", f"{name}, strict")):
                if kind in one:
                    count = one[kind]
                    share = f"{100 * count['equal'] / count['asked']:.0f}%"
                    rows.append([ENGINES[engine], _bold(label), share, f"{count['equal']} of {count['asked']}"])
    return table(["engine", "", "equal to solo", ""], rows)


def _crash(crash: dict[str, Any] | None) -> str:
    if crash is None:
        return NOT_MEASURED
    rows = []
    for name, one in crash["systems"].items():
        seconds = one["serves_again_s"]
        again = (
            f"not within {RECOVERY_S:g} s" if seconds is None else "yes" if crash["shared"] else f"after {seconds:g} s"
        )
        rows.append([_bold(name), str(one["calls"]), str(one["lost"]), str(one["duplicated"]), again])
    told = table(["", "calls", "lost", "duplicated", "serves again by itself"], rows)
    shared = "\n\nThe machine had other work to do meanwhile, so a system may come back sooner on a quiet one."
    return told + shared if crash["shared"] else told


def _tuning(tuning: dict[str, Any] | None, used: dict[str, Any]) -> str:
    if tuning is None:
        rows = [
            [ENGINES[engine], name, _point(point), "default"]
            for engine, names in used.items()
            for name, point in names.items()
        ]
        return table(["engine", "", "batch size, wait", ""], rows)
    rows = []
    for engine, systems in tuning.items():
        if engine != "machine":
            for name, found in systems.items():
                for point in found["grid"]:
                    chosen = "chosen" if point["tuning"] == found["chosen"] else ""
                    speed = [f"{point['images_per_s']:.1f}", f"{1000 * point['p99_s']:.0f}"]
                    rows.append([ENGINES[engine], name, _point(point["tuning"]), *speed, chosen])
    return table(["engine", "", "batch size, wait", "images/s at 16", "p99, ms", ""], rows)


def _point(tuning: dict[str, Any]) -> str:
    return f"{tuning['batch_size']}, {1000 * tuning['wait_s']:g} ms"


def _profile(profile: dict[str, Any] | None) -> str:
    if profile is None:
        return NOT_MEASURED
    rows = [
        [thread, stage, f"{100 * share:.1f}%"]
        for thread in ("drawing thread", "beside it")
        for stage, share in profile[thread].items()
    ]
    return table(["", "", "of the drawing thread's samples"], rows)


def _gpu(gpu: dict[str, Any] | None) -> str:
    if gpu is None or not gpu["ran"]:
        return "Not run: no CUDA device was at hand. `make bench-gpu` says so and measures nothing."
    rows = [
        [
            f"{run['size']}²",
            str(run["bucket"]),
            *(f"{run['step_ms'].get(path, float('nan')):.1f}" for path in gpu["paths"]),
        ]
        for run in gpu["steps"]
    ]
    return table(["size", "bucket", *(f"{path}, ms a step" for path in gpu["paths"])], rows)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bold(name: str) -> str:
    return f"**{name}**" if name.startswith(OURS) else name


def _with_interval(values: list[float], digits: int) -> str:
    middle, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low}–{high})"


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _optional(results: Path, name: str) -> dict[str, Any] | None:
    path = results / f"{name}.json"
    return _read(path) if path.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.comparison.page", description=__doc__)
    parser.add_argument("--plots", action="store_true", help="also docs/images/benchmarks-*.png")
    PAGE.write_text(page())
    if parser.parse_args().plots:
        from bench.comparison import plots

        plots.draw()


if __name__ == "__main__":
    main()
