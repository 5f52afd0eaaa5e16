"""The tables of docs/replication.md, from the cells' results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.evaluation import metrics
from distill.replicate import experiments as table
from distill.replicate import gates
from distill.replicate.gates import Results, last, of_teacher, ratio

COLUMNS = {"modes": 2, "entropy": 2, "tv": 3, "sharp": 3, "match": 3, "paired": 3}
"""Beside the diversity: metric → decimals."""
HEAD = (
    "| | diversity [95%] | ÷ teacher | modes of 8 | entropy, bits | TV | sharp | match | paired |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
SIGNS = {True: "passed", False: "**failed**", None: "not run"}


def gathered(out: Path, digits: int = 4) -> dict[str, Any]:
    """Every finished cell of a folder, rounded: cell name → its JSON."""
    files = sorted(path for path in out.glob("*.json") if path.name != "gates.json")
    return {path.stem: rounded(json.loads(path.read_text()), digits) for path in files}


def every(results: Results) -> dict[str, str]:
    """Name → markdown, of every table that `results` has the cells for."""
    names = {
        "methods": [cell.name for cell in table.METHODS],
        "anchors": ["dmd", *[cell.name for cell in table.ANCHORS]],
        "weights": ["dmd", "dmd-detached", *[cell.name for cell in table.WEIGHTS]],
        "beyond": ["dp-dmd", *[cell.name for cell in table.BEYOND]],
        "again": [cell.name for cell in table.CONFIRMED],
    }
    found = {name: of_cells(results, [c for c in cells if c in results]) for name, cells in names.items()}
    found["collapse"] = collapse(results)
    found["gates"] = of_gates(gates.judged(results, "dp-dmd") + gates.paper_signature(results))
    found["gates-chosen"] = of_gates(gates.judged(results, table.CHOSEN))
    found["gates-preset"] = of_gates(gates.judged(results, "preset", dmd="dmd-again"))
    return found


def of_cells(results: Results, cells: Sequence[str]) -> str:
    """The teacher's rows, then one for each cell."""
    if not cells:
        return "not run"
    rows = [_teacher_row(results[cells[0]]["teacher"], steps) for steps in ("30", "4")]
    return "\n".join([HEAD, *rows, *(_row(results, cell) for cell in cells)])


def collapse(results: Results) -> str:
    """What plain DMD and DP-DMD keep of the teacher's diversity, where the bed is changed."""
    rows = (
        ("as in the tables (256 dimensions, first step to .75, guidance 3.5)", "dmd", "dp-dmd"),
        ("64 dimensions", "dmd-64", "dp-dmd-64"),
        ("16 dimensions", "dmd-16", "dp-dmd-16"),
        ("16 dimensions, first step to .4, K = 18", "dmd-16-long-step", "dp-dmd-16-long-step"),
        ("first step to .9", "dmd-late-grid", "late-grid"),
        ("teacher without guidance", "dmd-unguided", "dp-dmd-unguided"),
    )
    head = "| | teacher | DMD ÷ teacher | DP-DMD ÷ teacher | DP-DMD's share of sharp samples |\n|---|---|---|---|---|"
    return "\n".join([head, *(_collapse_row(results, *row) for row in rows)])


def of_gates(found: Sequence[gates.Gate]) -> str:
    rows = [f"| {gate.name} | {gate.asked} | {gate.found} | {SIGNS[gate.passed]} |" for gate in found]
    return "\n".join(["| gate | asked | found | |\n|---|---|---|---|", *rows])


def _collapse_row(results: Results, title: str, dmd: str, ours: str) -> str:
    ran = [cell for cell in (dmd, ours) if cell in results]
    if not ran:
        return f"| {title} | not run | not run | not run | |"
    teacher = float(of_teacher(results, ran[0], "diversity")[0])
    kept = (_interval(ratio(results, c, "teacher", "diversity")) if c in ran else "not run" for c in (dmd, ours))
    sharp = f"{float(last(results, ours, 'sharp').mean()):.3f}" if ours in ran else ""
    return f"| {title} | {teacher:.3f} | {' | '.join(kept)} | {sharp} |"


def _row(results: Results, cell: str) -> str:
    diversity = metrics.mean_and_interval(last(results, cell, "diversity"))
    share = ratio(results, cell, "teacher", "diversity").value
    others = (f"{float(last(results, cell, metric).mean()):.{digits}f}" for metric, digits in COLUMNS.items())
    return f"| {cell} | {_interval(diversity)} | {share:.2f} | {' | '.join(others)} |"


def _teacher_row(teacher: Mapping[str, Mapping[str, float]], steps: str) -> str:
    measured, whole = teacher[steps], teacher["30"]
    others = (f"{measured[metric]:.{digits}f}" for metric, digits in COLUMNS.items())
    share = measured["diversity"] / whole["diversity"]
    return f"| teacher, {steps} steps | {measured['diversity']:.3f} | {share:.2f} | {' | '.join(others)} |"


def _interval(found: metrics.Ratio | metrics.Mean) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def rounded(value: Any, digits: int = 4) -> Any:
    """JSON with its numbers to so many decimals."""
    if isinstance(value, dict):
        return {name: rounded(content, digits) for name, content in value.items()}
    if isinstance(value, list):
        return [rounded(content, digits) for content in value]
    return round(value, digits) if isinstance(value, float) else value
