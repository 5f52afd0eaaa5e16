"""The tables of the emoji beds in docs/replication.md, from their cells' results."""

from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any

from distill.replicate import emoji_settings
from distill.replicate import report_tables as tables

Report = Mapping[str, Any]

COLUMNS: dict[str, Callable[[Report], float]] = {
    "diversity ÷ teacher, vague": emoji_settings.vague_diversity,
    "names": lambda report: report["spaces"]["emoji"]["diversity"]["names"]["ratio"]["value"],
    "prompt match ÷ teacher": emoji_settings.prompt_match,
    "unsure": lambda report: report["emoji"]["model"]["unsure"],
    "precision": emoji_settings.precision,
    "recall": lambda report: report["spaces"]["emoji"]["manifolds"]["recall"],
}


def every(results: Mapping[str, Any]) -> tuple[str, str]:
    """Markdown of the methods and of the gates; `results` by the cells' names, as `tables.gathered` reads them."""
    return methods(results), tables.of_gates(emoji_settings.judged(results))


def methods(results: Mapping[str, Any]) -> str:
    """One row for each method, means over its training seeds with their range."""
    rows = []
    for method in emoji_settings.METHODS:
        if found := list(emoji_settings.reports(results, method).values()):
            columns = [_told([read(report) for report in found]) for read in COLUMNS.values()]
            rows.append(f"| {' | '.join([method, str(len(found)), *columns])} |")
    head = f"| | training seeds | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}"
    return "\n".join([head, *rows])


def _told(values: list[float]) -> str:
    spread = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"
