"""The three test beds of `fourstep distill replicate`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from distill.replicate import experiments as table
from distill.replicate import gates, run
from distill.replicate import report_tables as tables
from distill.replicate.cell import Cell
from distill.replicate.students import Size

Bed = Literal["mixture", "emoji-small", "emoji"]

QUICK_SIZE = Size(seeds=2, width=16, batch=4, samples=8)
QUICK_CELL: dict[str, Any] = {"dimension": 16, "updates": 2}


def run_bed(bed: Bed, out: Path, work: Path, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Run what `out` does not have of a bed yet; returns its gates, which are also in `out`/gates.json.

    `quick` runs the bed's whole way at a size that shows nothing. Raises ValueError when `out` holds results of other
    settings, OSError when the artwork of `emoji-small` can be neither found in `work` nor fetched.
    """
    if bed == "mixture":
        return _mixture(out, quick)
    from distill.replicate import emoji_settings

    if bed == "emoji-small":
        emoji_settings.small(replace(emoji_settings.QUICK, guidance=1.0) if quick else emoji_settings.SMALL, out, work)
    else:
        emoji_settings.pair(emoji_settings.QUICK if quick else emoji_settings.PAIR, out)
    found = {"emoji": gates.as_json(emoji_settings.judged(tables.gathered(out)))}
    run.write_json(out / "gates.json", found)
    return found


def _mixture(out: Path, quick: bool) -> dict[str, list[dict[str, Any]]]:
    cells: tuple[Cell, ...] = (*table.every(), *table.CONFIRMED)
    if quick:
        cells = tuple(replace(cell, **QUICK_CELL) for cell in cells)
    run.run(cells, QUICK_SIZE if quick else Size(), out)
    results = {cell.name: json.loads((out / f"{cell.name}.json").read_text()) for cell in cells}
    found = {
        "paper": gates.as_json(gates.judged(results, "dp-dmd") + gates.paper_signature(results)),
        "preset": gates.as_json(gates.judged(results, "preset", dmd="dmd-again")),
    }
    run.write_json(out / "gates.json", found)
    return found
