"""The tables and the plot of docs/scaling.md, from bench/results/scaling.json: ``python -m bench.scaling_tables``."""

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
PLOT = PAGE.parent / "images" / "scaling.png"
RESULTS = Path(__file__).parent / "results" / "scaling.json"


def rendered(page: str, report: dict[str, Any]) -> str:
    """`page` with every table between ``<!-- NAME -->`` and ``<!-- end -->`` made anew."""
    tables = {"redis": redis(report), "validation": validation(report), "course": course(report)}
    return re.sub(
        r"<!-- (\w+) -->\n.*?<!-- end -->", lambda found: _between(found[1], tables[found[1]]), page, flags=re.DOTALL
    )


def redis(report: dict[str, Any]) -> str:
    rows = [
        (
            run["images_per_call"],
            f"{run['commands_per_image']['evalsha']:.2f}",
            f"{sum(run['commands_per_image'].values()):.0f}",
            run["bytes_to_redis_per_image"],
            run["bytes_from_redis_per_image"],
        )
        for run in report["redis"]
    ]
    head = ("images in a call", "scripts per image", "commands, those in scripts included", "bytes in", "bytes out")
    return _table(head, rows)


def validation(report: dict[str, Any]) -> str:
    rows = [
        (
            row["workers"],
            f"{row['load']:.0%}",
            *(
                f"{row[f'{kind}_{quantile}_ms']:.0f}"
                for quantile in ("p50", "p99")
                for kind in ("measured", "simulated")
            ),
            *(
                f"{row[f'simulated_{quantile}_ms'] / row[f'measured_{quantile}_ms'] - 1:+.0%}"
                for quantile in ("p50", "p99")
            ),
        )
        for row in report["validation"]
    ]
    head = ("workers", "load", "p50 measured, ms", "simulated", "p99 measured, ms", "simulated", "p50 off", "p99 off")
    return _table(head, rows)


def course(report: dict[str, Any]) -> str:
    rows = [
        (
            row["workers"],
            f"{row['load']:.0%}",
            "even" if row["burst"] == 1 else "bursts",
            f"{row['p50_ms']:.0f}",
            f"{row['p99_ms']:.0f}",
            f"{row['mean_batch']:.1f}",
            f"{row['worker_ms_per_image']:.1f}",
        )
        for row in report["course"]
        if row["load"] in (0.5, 0.9)
    ]
    head = ("workers", "load", "arrivals", "p50, ms", "p99, ms", "mean batch", "worker time per image, ms")
    return _table(head, rows)


def plot(report: dict[str, Any]) -> None:
    """p99 against the number of workers, and against what an image costs."""
    import matplotlib.pyplot as plt

    figure, (by_workers, by_cost) = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    for load, colour in ((0.5, "C0"), (0.7, "C1"), (0.9, "C3")):
        for even, style in ((True, "-"), (False, "--")):
            runs = [run for run in report["course"] if run["load"] == load and (run["burst"] == 1) == even]
            label = f"{load:.0%} load, {'even' if even else 'bursts'}"
            by_workers.plot(
                [run["workers"] for run in runs], [run["p99_ms"] for run in runs], style, color=colour, label=label
            )
    for count in (1, 10, 100, 1000):
        runs = [run for run in report["course"] if run["workers"] == count and run["burst"] == 1]
        cost, p99 = [run["worker_ms_per_image"] for run in runs], [run["p99_ms"] for run in runs]
        by_cost.plot(cost, p99, marker="o", label=f"{count} workers")
    by_workers.set(xscale="log", yscale="log", xlabel="workers", ylabel="p99 latency, ms")
    by_cost.set(xlabel="worker time paid per image, ms")
    for axes in (by_workers, by_cost):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def _between(name: str, table: str) -> str:
    return f"<!-- {name} -->\n{table}<!-- end -->"


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    results = json.loads(RESULTS.read_text())
    PAGE.write_text(rendered(PAGE.read_text(), results))
    plot(results)
