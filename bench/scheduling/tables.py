"""The tables of docs/batching.md, from bench/results/policies.json: `python -m bench.scheduling.tables`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from bench.markdown import filled, table
from bench.scheduling.policies import COARSE, OURS, PEERS, RULES, read

PAGE = Path(__file__).parents[2] / "docs" / "batching.md"

FIGURES = ("mean_ms", "p99_ms")

Cells = Sequence[dict[str, Any]]


def rendered(page: str, cells: Cells) -> str:
    """`page` with every table made anew."""
    return filled(page, {make.__name__: make(cells) for make in (rules, furthest, peers, devices, kinds, finer)})


def behind(cell: dict[str, Any], figure: str, name: str, others: Sequence[str]) -> float:
    """A policy's figure over the best of `others`."""
    return cell[figure][name] / min(cell[figure][other] for other in others)


def rules(cells: Cells) -> str:
    rows = []
    for name in RULES:
        row: list[object] = [name]
        for figure in FIGURES:
            ratios = [behind(cell, figure, name, list(RULES)) for cell in cells]
            row += [f"{geometric_mean(ratios):.3f}", *(sum(r > 1 + share for r in ratios) for share in (0.02, 0.05))]
            row.append(f"{max(ratios):.2f}")
        rows.append(row)
    heads = [[f"{figure} ÷ best", "over 2% behind", "over 5%", "worst"] for figure in ("mean", "p99")]
    return table(["rule", *heads[0], *heads[1]], rows)


def furthest(cells: Cells) -> str:
    """The cells in which our mean is furthest behind that of another rule."""
    rows = []
    order = sorted(cells, key=lambda cell: -behind(cell, "mean_ms", OURS, list(RULES)))
    for cell in order[:8]:
        best = min(RULES, key=lambda name: cell["mean_ms"][name])
        ratios = [f"{behind(cell, figure, OURS, list(RULES)):.2f}" for figure in FIGURES]
        about = (cell["curve"], _padded(cell), cell["max_batch"], cell["images"], cell["load"], cell["arrivals"])
        rows.append((*about, *ratios, best))
    head = (
        "*t(b)*",
        "device",
        "limit",
        "images of a call",
        "load",
        "arrivals",
        "mean ÷ best",
        "p99 ÷ best",
        "best mean",
    )
    return table(head, rows)


def peers(cells: Cells) -> str:
    rows = []
    for name in PEERS:
        ratios = {figure: [behind(cell, figure, OURS, [name]) for cell in cells] for figure in FIGURES}
        means = [f"{geometric_mean(ratios[figure]):.2f}" for figure in FIGURES]
        rows.append((name, *means, *(sum(r > 1.02 for r in ratios[figure]) for figure in FIGURES)))
    best = {figure: [behind(cell, figure, OURS, PEERS) for cell in cells] for figure in FIGURES}
    means = [f"{geometric_mean(best[figure]):.2f}" for figure in FIGURES]
    rows.append(("the best of them", *means, *(sum(r > 1.02 for r in best[figure]) for figure in FIGURES)))
    head = ("fourstep ÷", "mean", "p99", "cells where fourstep's mean is over 2% behind", "its p99")
    return table(head, rows)


def devices(cells: Cells) -> str:
    """Against the best peer, by curve and limit."""
    plain = [cell for cell in cells if cell["kind"] == "plain"]
    ratio = {figure: lambda cell, figure=figure: behind(cell, figure, OURS, PEERS) for figure in FIGURES}
    return _by_device(plain, [ratio[figure] for figure in FIGURES])


def finer(cells: Cells) -> str:
    """Padding to the worker's batch sizes, over padding to powers of two."""
    padded = [cell for cell in cells if cell["kind"] == "plain" and cell["pads"]]
    ratio = {figure: lambda cell, figure=figure: behind(cell, figure, OURS, [COARSE]) for figure in FIGURES}
    return _by_device(padded, [ratio[figure] for figure in FIGURES])


def kinds(cells: Cells) -> str:
    rows = []
    for kind in dict.fromkeys(cell["kind"] for cell in cells):
        some = [cell for cell in cells if cell["kind"] == kind]
        row: list[object] = [kind, len(some)]
        for others in (list(RULES), PEERS):
            row += [f"{geometric_mean(behind(cell, figure, OURS, others) for cell in some):.2f}" for figure in FIGURES]
        late = [_late(some, names) for names in ([OURS], PEERS)] if kind == "deadlines" else ["", ""]
        rows.append([*row, *late])
    head = ["mean ÷ best rule", "p99", "mean ÷ best peer", "p99", "late", "late with the best peer"]
    return table(["calls", "cells", *head], rows)


def left(cells: Cells) -> str:
    """Our mean over the bound, by load."""
    plain = [cell for cell in cells if cell["kind"] == "plain"]
    loads = sorted({cell["load"] for cell in plain})
    by_load = [[cell for cell in plain if cell["load"] == load] for load in loads]
    rows = [
        ("the bound", *(_mean([cell["mean_ms"][OURS] / cell["bound_ms"] for cell in some]) for some in by_load)),
        ("the best rule", *(_mean([behind(cell, "mean_ms", OURS, list(RULES)) for cell in some]) for some in by_load)),
        ("the best peer", *(_mean([behind(cell, "mean_ms", OURS, PEERS) for cell in some]) for some in by_load)),
    ]
    return table(["fourstep's mean ÷", *(f"load {load}" for load in loads)], rows)


def _mean(ratios: Sequence[float]) -> str:
    return f"{geometric_mean(ratios):.2f}"


def _late(cells: Cells, names: Sequence[str]) -> str:
    """The share of the calls with a deadline that miss it."""
    return f"{sum(min(cell['late'][name] for name in names) for cell in cells) / len(cells):.0%}"


def _by_device(cells: Cells, figures: Sequence[Callable[[dict[str, Any]], float]]) -> str:
    limits = sorted({cell["max_batch"] for cell in cells})
    rows = []
    for curve, padded in dict.fromkeys((cell["curve"], _padded(cell)) for cell in cells):
        row = [curve, padded]
        for limit in limits:
            here = [
                cell for cell in cells if (cell["curve"], _padded(cell), cell["max_batch"]) == (curve, padded, limit)
            ]
            row.append(" / ".join(f"{geometric_mean(map(figure, here)):.2f}" for figure in figures) if here else "")
        rows.append(row)
    return table(["*t(b)*", "device", *(f"limit {limit}" for limit in limits)], rows)


def _padded(cell: dict[str, Any]) -> str:
    return "padded" if cell["pads"] else "eager"


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(), read()[0]))
