"""Render docs/benchmarks.md from the committed JSON: the prose is in template.md, every figure is filled in here."""

from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

from bench import markdown, results_file
from bench.comparison.aims import aims, no_crash
from bench.comparison.figures import SLO
from bench.comparison.page import tables
from bench.comparison.summary import summary
from bench.comparison.systems import BATCH_SIZES, WAITS_S, Tuning
from bench.comparison.trace import CALLS, DEADLINE
from bench.comparison.user_lines import counted
from bench.comparison.visit import LOAD, OVERLOAD
from bench.peers.latency_engine import FIXED_S, PER_ROW_S, STEPS

TEMPLATE = Path(__file__).parent / "template.md"
PAGE = Path(__file__).parents[3] / "docs" / "benchmarks.md"
NOT_SHOWN = "not shown: they need a machine without other work"
PLOTS = """![Images a second at saturation](images/benchmarks-throughput.png)

![Latency of the trace](images/benchmarks-latency.png)"""


def page(results: Path = results_file.RESULTS) -> str:
    """The whole page; what has not been run yet is said to be not measured."""
    crash = results_file.read("comparison_crash", results)
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
        "crash": tables.crash(crash),
        "profile": tables.profile(results_file.read("comparison_profile", results)),
    }
    comparison = results_file.read("comparison", results)
    run = _measured(results, comparison, crash) if comparison else _without_run(crash)
    return Template(TEMPLATE.read_text()).substitute(always | run)


def _without_run(crash: dict[str, Any] | None) -> dict[str, str]:
    """The page before the first run: lines of code are counted, and aims that the kill -9 trials settle are judged."""
    timed = ("bare", "sampler", "diffusers", "latency_model", "overload_table", "batches", "equality", "tuning")
    lines = [[tables.bold(name), str(count)] for name, count in counted().items()]
    settled = [asdict(no_crash(crash))] if crash else []
    left = "Every other aim waits for a run on a machine without other work."
    return dict.fromkeys(timed, tables.NOT_MEASURED) | {
        "origin": "No run of the whole on a machine without other work has been committed yet.",
        "tuned": "",
        "plots": "",
        "aims": f"{tables.aims(settled, timed=False)}\n\n{left}",
        "resources": markdown.table(["", "lines of user code"], lines),
    }


def _measured(results: Path, comparison: dict[str, Any], crash: dict[str, Any] | None) -> dict[str, str]:
    rounds = results_file.read("comparison_rounds", results)
    figures, teacher, timed = summary(rounds), rounds[-1]["teacher"], not comparison["shared"]
    versions = ", ".join(f"{name} {version}" for name, version in comparison["versions"].items())
    run = f"Made by {_run(comparison, len(rounds))}, on {_machine(comparison['machine'])}. {_quiet(comparison)}"
    return {
        "origin": f"{run}\n\nVersions: {versions}.",
        "tuned": _tuned(comparison),
        "bare": tables.bare(figures, teacher) if timed else NOT_SHOWN,
        "aims": tables.aims(aims(figures, teacher, crash), timed),
        "sampler": tables.speed(figures, "sampler") if timed else NOT_SHOWN,
        "plots": PLOTS if timed else "",
        "diffusers": tables.speed(figures, "diffusers") if timed else NOT_SHOWN,
        "latency_model": tables.speed(figures, "latency-model") if timed else NOT_SHOWN,
        "overload_table": tables.overload(figures) if timed else NOT_SHOWN,
        "batches": tables.batches(figures) if timed else NOT_SHOWN,
        "resources": tables.resources(figures, comparison["user_lines"], timed),
        "equality": tables.equality(figures),
        "tuning": tables.tuning(results_file.read("comparison_tuning", results), comparison["tuning"]),
    }


def _run(comparison: dict[str, Any], rounds: int) -> str:
    kinds = {"full": f"`make bench`, {rounds} rounds", "quick": f"`make bench QUICK=1`, {rounds} short round"}
    return f"{kinds[comparison['variant']]}, {comparison['minutes']:g} minutes"


def _quiet(comparison: dict[str, Any]) -> str:
    if not comparison["shared"]:
        return "Nothing else ran on the machine."
    return f"**The machine had other work to do meanwhile**: counts and memory are shown here, times are {NOT_SHOWN}."


def _tuned(comparison: dict[str, Any]) -> str:
    if comparison["tuned_by_grid"]:
        return "The points kept are in the grid below."
    return f"**This run is not tuned:** all of them are at batch size and wait {tables.point(vars(Tuning()))}."


def _machine(facts: dict[str, Any]) -> str:
    has = {"avx512": "AVX512", "avx512_bf16": "AVX512-BF16", "amx": "AMX"}
    flags = ", ".join(f"{label} {'yes' if facts[name] else 'no'}" for name, label in has.items() if name in facts)
    system = f"Python {facts['python']}, torch {facts['torch']} on one thread"
    return f"{facts['cores']} cores of an {facts['cpu_model']} ({facts['cpu']}; {flags}), {system}"


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)
