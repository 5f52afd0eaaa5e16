"""The tables and the plot of docs/scaling.md, from bench/results/scaling.json: ``python -m bench.scaling.tables``."""

from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from bench import results_file
from bench.markdown import filled, table

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
PLOT = PAGE.parent / "images" / "scaling.png"


def rendered(page: str, report: dict[str, Any]) -> str:
    """`page` with every table made anew."""
    return filled(page, {make.__name__: make(report) for make in (redis, costs, validation, course)})


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
    return table(head, rows)


def costs(report: dict[str, Any]) -> str:
    """Milliseconds of a step and of an end, by batch size."""
    head = ("network", "", *(f"batch of {rows}" for rows in _first(report["costs"])["step"]), "outside")
    rows = [
        (name, what, *(f"{1000 * seconds:.1f}" for seconds in figures[key].values()), last)
        for name, figures in report["costs"].items()
        for what, key, last in (
            ("a step", "step", f"{1000 * figures['outside']:.1f}"),
            ("its end, beside the last step", "finish", ""),
        )
    ]
    return table(head, rows)


def validation(report: dict[str, Any]) -> str:
    rows = []
    for (workers, load), group in groupby(report["validation"], key=lambda run: (run["workers"], run["load"])):
        runs = list(group)
        cells = [_beside(runs, quantile) for quantile in ("p50", "p99")]
        rows.append((workers, f"{load:.0%}", sum(run["images"] for run in runs), *cells[0], *cells[1]))
    beside = [(f"{quantile} measured, ms", "simulated", "off") for quantile in ("p50", "p99")]
    return table(("workers", "load", "images", *beside[0], *beside[1]), rows)


def _beside(runs: list[dict[str, Any]], quantile: str) -> tuple[str, str, str]:
    """Measured, with the range of the repeats; simulated; and by how much, both of the same arrivals, the median."""
    real, ideal = ([run[f"{kind}_{quantile}_ms"] for run in runs] for kind in ("measured", "simulated"))
    off = median(one / other - 1 for one, other in zip(ideal, real, strict=True))
    return f"{median(real):.0f} ({min(real):.0f}–{max(real):.0f})", f"{median(ideal):.0f}", f"{off:+.0%}"


def course(report: dict[str, Any]) -> str:
    found = {(run["device"], run["workers"], run["load"], run["burst"] == 1): run for run in report["course"]}
    devices = _devices(report)
    rows = [
        (
            workers,
            f"{load:.0%}",
            "even" if even else "bursts",
            *(_cell(found.get((device, workers, load, even))) for device in devices),
        )
        for device, workers, load, even in found
        if device == devices[0] and load in (0.5, 0.9)
    ]
    return table(("workers", "load", "arrivals", *(f"{device}: p50, p99; batch" for device in devices)), rows)


def _cell(run: dict[str, Any] | None) -> str:
    return "" if run is None else f"{run['p50_ms']:,.0f}, {run['p99_ms']:,.0f}; {run['mean_batch']:.1f}"


def plot(report: dict[str, Any]) -> None:
    """p99 against the number of workers, and against what an image costs."""
    import matplotlib.pyplot as plt

    columns = len(_devices(report)) + 1
    figure, panels = plt.subplots(1, columns, figsize=(4.5 * columns, 3.8))
    for axes, device in zip(panels, _devices(report), strict=False):
        for load, colour in ((0.5, "C0"), (0.7, "C1"), (0.9, "C3")):
            for even, style in ((True, "-"), (False, "--")):
                runs = _runs(report, device=device, load=load, even=even)
                label = f"{load:.0%} load, {'even' if even else 'bursts'}"
                axes.plot(
                    [run["workers"] for run in runs], [run["p99_ms"] for run in runs], style, color=colour, label=label
                )
        axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="p99 latency, ms", title=device)
    for device, style in zip(_devices(report), ("-", "--"), strict=False):
        for count in (1, 10, 100, 1000):
            runs = _runs(report, device=device, workers=count, even=True)
            cost, p99 = [run["worker_ms_per_image"] for run in runs], [run["p99_ms"] for run in runs]
            panels[-1].plot(cost, p99, style, marker="o", label=f"{count} workers, {device}")
    panels[-1].set(
        yscale="log", xlabel="worker time paid per image, ms", ylabel="p99 latency, ms", title="even arrivals"
    )
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def _runs(report: dict[str, Any], even: bool, **wanted: Any) -> list[dict[str, Any]]:
    runs = [run for run in report["course"] if (run["burst"] == 1) == even]
    return [run for run in runs if all(run[name] == value for name, value in wanted.items())]


def _devices(report: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(run["device"] for run in report["course"]))


def _first(of: dict[str, Any]) -> Any:
    return next(iter(of.values()))


if __name__ == "__main__":
    results = results_file.read("scaling")
    PAGE.write_text(rendered(PAGE.read_text(), results))
    plot(results)
