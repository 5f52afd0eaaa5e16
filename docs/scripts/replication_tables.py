"""The tables of docs/replication.md, from the runs' results."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from bench.markdown import table
from distill.evaluation import metrics
from distill.replicate import emoji_settings, experiments, gates
from distill.replicate.gates import Results, last, of_teacher, ratio

COLUMNS = {"modes": 2, "entropy": 2, "tv": 3, "sharp": 3, "match": 3, "paired": 3}
"""Beside the diversity: metric → decimals."""
HEAD = ("", "diversity [95%]", "÷ teacher", "modes of 8", "entropy, bits", "TV", "sharp", "match", "paired")
SIGNS = {True: "passed", False: "**failed**", None: "not run"}
EMOJI_COLUMNS: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "diversity ÷ teacher, vague": emoji_settings.vague_diversity,
    "names": lambda report: report["spaces"]["emoji"]["diversity"]["names"]["ratio"]["value"],
    "prompt match ÷ teacher": emoji_settings.prompt_match,
    "unsure": lambda report: report["emoji"]["model"]["unsure"],
    "precision": emoji_settings.precision,
    "recall": lambda report: report["spaces"]["emoji"]["manifolds"]["recall"],
}


def mixture(results: Results) -> dict[str, str]:
    """Name → Markdown of every table of the mixture setting that `results` has the runs for."""
    names = {
        "methods": [run.name for run in experiments.METHODS],
        "anchors": ["dmd", *[run.name for run in experiments.ANCHORS]],
        "weights": ["dmd", "dmd-detached", *[run.name for run in experiments.WEIGHTS]],
        "beyond": ["dp-dmd", *[run.name for run in experiments.BEYOND]],
        "again": [run.name for run in experiments.CONFIRMED],
    }
    found = {name: of_runs(results, [run for run in runs if run in results]) for name, runs in names.items()}
    found["collapse"] = collapse(results)
    found["gates"] = of_gates(gates.judged(results, "dp-dmd") + gates.paper_signature(results))
    found["gates-chosen"] = of_gates(gates.judged(results, experiments.CHOSEN))
    found["gates-preset"] = of_gates(gates.judged(results, "preset", dmd="dmd-again"))
    return found


def emoji(setting: str, results: Mapping[str, Any]) -> dict[str, str]:
    """The same of an emoji setting: its methods, means over their training seeds with their range, and its gates."""
    rows = []
    for method in emoji_settings.METHODS:
        if found := list(emoji_settings.reports(results, method).values()):
            columns = [_mean_and_range([read(report) for report in found]) for read in EMOJI_COLUMNS.values()]
            rows.append([method, len(found), *columns])
    methods = table(["", "training seeds", *EMOJI_COLUMNS], rows)
    return {setting: methods, f"gates-{setting}": of_gates(emoji_settings.judged(results))}


def of_runs(results: Results, runs: Sequence[str]) -> str:
    """The teacher's rows, then one for each run."""
    if not runs:
        return "not run"
    rows = [_teacher_row(results[runs[0]]["teacher"], steps) for steps in ("30", "4")]
    return table(HEAD, [*rows, *(_row(results, run) for run in runs)])


def collapse(results: Results) -> str:
    """The share of the teacher's diversity that plain DMD and DP-DMD keep when the setting changes."""
    rows = (
        ("as in the tables (256 dimensions, first step to .75, guidance 3.5)", "dmd", "dp-dmd"),
        ("64 dimensions", "dmd-64", "dp-dmd-64"),
        ("16 dimensions", "dmd-16", "dp-dmd-16"),
        ("16 dimensions, first step to .4, K = 18", "dmd-16-long-step", "dp-dmd-16-long-step"),
        ("first step to .9", "dmd-late-grid", "late-grid"),
        ("teacher without guidance", "dmd-unguided", "dp-dmd-unguided"),
    )
    head = ("", "teacher", "DMD ÷ teacher", "DP-DMD ÷ teacher", "DP-DMD's share of sharp samples")
    return table(head, [_collapse_row(results, *row) for row in rows])


def of_gates(found: Sequence[gates.Gate]) -> str:
    rows = [(gate.name, gate.asked, gate.found, SIGNS[gate.passed]) for gate in found]
    return table(("gate", "asked", "found", ""), rows)


def _collapse_row(results: Results, title: str, dmd: str, ours: str) -> list[str]:
    ran = [run for run in (dmd, ours) if run in results]
    if not ran:
        return [title, "not run", "not run", "not run", ""]
    teacher = float(of_teacher(results, ran[0], "diversity")[0])
    kept = (str(ratio(results, run, "teacher", "diversity")) if run in ran else "not run" for run in (dmd, ours))
    sharp = f"{float(last(results, ours, 'sharp').mean()):.3f}" if ours in ran else ""
    return [title, f"{teacher:.3f}", *kept, sharp]


def _row(results: Results, run: str) -> list[str]:
    diversity = metrics.mean_and_interval(last(results, run, "diversity"))
    share = ratio(results, run, "teacher", "diversity").value
    others = (f"{float(last(results, run, metric).mean()):.{digits}f}" for metric, digits in COLUMNS.items())
    return [run, str(diversity), f"{share:.2f}", *others]


def _teacher_row(teacher: Mapping[str, Mapping[str, float]], steps: str) -> list[str]:
    measured, whole = teacher[steps], teacher["30"]
    others = (f"{measured[metric]:.{digits}f}" for metric, digits in COLUMNS.items())
    share = measured["diversity"] / whole["diversity"]
    return [f"teacher, {steps} steps", f"{measured['diversity']:.3f}", f"{share:.2f}", *others]


def _mean_and_range(values: list[float]) -> str:
    spread = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"
