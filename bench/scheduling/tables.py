"""The tables of docs/batching-results.md: `python -m bench.scheduling.tables`.

They are made from policies.json and engine_arrivals.json.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

from bench import results_file
from bench.markdown import filled, table
from bench.scheduling.policies import COARSE, OURS, PEERS, RULES, read

PAGE = Path(__file__).parents[2] / "docs" / "batching-results.md"

MEAN_AND_P99 = ("mean_ms", "p99_ms")

Cells = Sequence[dict[str, Any]]


def rendered(page: str) -> str:
    """`page` with every table made anew."""
    cells = read()[0]
    plain = [cell for cell in cells if cell["kind"] == "plain"]
    tables = {
        "rules": rules(cells),
        "furthest": furthest(plain),
        "peers": peers(cells),
        "devices": by_device(plain, PEERS),
        "kinds": kinds(cells),
        "left": left(plain),
        "finer": by_device([cell for cell in plain if cell["pads"]], [COARSE]),
        "engine": engine(results_file.read("engine_arrivals")),
    }
    return filled(page, tables)


def ratios(cells: Cells, figure: str, name: str, others: Collection[str]) -> list[float]:
    """In each cell a policy's figure over the best of `others`."""
    return [cell[figure][name] / min(cell[figure][other] for other in others) for cell in cells]


def rules(cells: Cells) -> str:
    rows = []
    for name in RULES:
        row: list[object] = [name]
        for figure in MEAN_AND_P99:
            behind = ratios(cells, figure, name, RULES)
            over = [sum(ratio > 1 + share for ratio in behind) for share in (0.02, 0.05, 0.1)]
            row += [f"{geometric_mean(behind):.3f}", " / ".join(map(str, over)), f"{max(behind):.2f}"]
        rows.append(row)
    heads = [(f"{figure} ÷ best", "cells over 2 / 5 / 10% behind", "worst") for figure in ("mean", "p99")]
    return table(["rule", *heads[0], *heads[1]], rows)


def furthest(cells: Cells) -> str:
    """The cells in which our mean is furthest behind that of another rule."""
    rows = []
    for cell in sorted(cells, key=lambda cell: -ratios([cell], "mean_ms", OURS, RULES)[0])[:8]:
        about = (cell["curve"], _device(cell), cell["max_batch"], cell["images"], cell["load"], cell["arrivals"])
        best = min(RULES, key=lambda name: cell["mean_ms"][name])
        rows.append((*about, *_means([cell], RULES), best))
    about = ("*t(b)*", "device", "limit", "images", "load", "arrivals")
    return table((*about, "mean ÷ best", "p99 ÷ best", "best mean"), rows)


def peers(cells: Cells) -> str:
    rows = []
    for name, others in {**{peer: [peer] for peer in PEERS}, "the best of them": PEERS}.items():
        behind = [sum(ratio > 1.02 for ratio in ratios(cells, figure, OURS, others)) for figure in MEAN_AND_P99]
        rows.append((name, *_means(cells, others), *behind))
    head = ("fourstep ÷", "mean", "p99", "cells with fourstep's mean over 2% behind", "with its p99")
    return table(head, rows)


def kinds(cells: Cells) -> str:
    rows = []
    for kind in dict.fromkeys(cell["kind"] for cell in cells):
        some = [cell for cell in cells if cell["kind"] == kind]
        late = [_late(some, names) if kind == "deadlines" else "" for names in ([OURS], RULES, PEERS)]
        rows.append((kind, len(some), *_means(some, RULES), *_means(some, PEERS), *late))
    head = ("calls", "cells", "mean ÷ best rule", "p99", "mean ÷ best peer", "p99", "late", "best rule", "best peer")
    return table(head, rows)


def left(cells: Cells) -> str:
    """Our mean over the bound, by load."""
    by_load = {load: [cell for cell in cells if cell["load"] == load] for load in sorted({c["load"] for c in cells})}
    over_bound = [geometric_mean(c["mean_ms"][OURS] / c["bound_ms"] for c in some) for some in by_load.values()]
    rows = [
        ("the bound", *(f"{ratio:.2f}" for ratio in over_bound)),
        ("the best rule", *(_means(some, RULES)[0] for some in by_load.values())),
        ("the best peer", *(_means(some, PEERS)[0] for some in by_load.values())),
    ]
    return table(("fourstep's mean ÷", *(f"load {load}" for load in by_load)), rows)


def by_device(cells: Cells, others: Collection[str]) -> str:
    """Our mean and p99 over the best of `others`, by curve and limit."""
    limits = sorted({cell["max_batch"] for cell in cells})
    rows = []
    for curve, device in dict.fromkeys((cell["curve"], _device(cell)) for cell in cells):
        alike = [cell for cell in cells if (cell["curve"], _device(cell)) == (curve, device)]
        by_limit = [[cell for cell in alike if cell["max_batch"] == limit] for limit in limits]
        rows.append((curve, device, *(" / ".join(_means(some, others)) if some else "" for some in by_limit)))
    return table(("*t(b)*", "device", *(f"limit {limit}" for limit in limits)), rows)


def engine(report: dict[str, Any]) -> str:
    """Both policies on the engine, and their ratio."""
    rows = []
    for name, policy in (("fourstep", "step"), ("request batching", "request")):
        latencies = [f"{1000 * seconds:.0f}" for seconds in report["latency_cpu_s"][policy].values()]
        rates = [report[f"{course}_images_per_cpu_s"][policy] for course in ("sustained", "drained")]
        rows.append((name, *latencies, *(f"{rate:.1f}" for rate in rates)))
    rows.append(("ratio", *(f"{ratio:.2f}" for ratio in report["step_over_request"].values())))
    return table(("", "p50, ms", "p90", "p99", "images a second, sustained", "to the last image"), rows)


def _means(cells: Cells, others: Collection[str]) -> list[str]:
    """Our mean and p99 over the best of `others`, geometric means over `cells`."""
    return [f"{geometric_mean(ratios(cells, figure, OURS, others)):.2f}" for figure in MEAN_AND_P99]


def _late(cells: Cells, names: Collection[str]) -> str:
    """The share of the calls with a deadline that miss it."""
    return f"{mean(min(cell['late'][name] for name in names) for cell in cells):.0%}"


def _device(cell: dict[str, Any]) -> str:
    return "padded" if cell["pads"] else "eager"


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text()))
