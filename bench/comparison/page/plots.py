"""The plots of docs/benchmarks.md."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from bench import results_file
from bench.comparison.aims import OURS
from bench.comparison.page.tables import ENGINES
from bench.comparison.summary import summary

IMAGES = Path(__file__).parents[3] / "docs" / "images"
OUR_COLOUR, OTHERS = "#d1495b", ["#8d99ae", "#5c677d", "#33658a", "#86bbd8", "#2f4858"]


def draw() -> None:
    """docs/images/benchmarks-throughput.png and benchmarks-latency.png."""
    rounds = results_file.read("comparison_rounds")
    _throughput(summary(rounds))
    _latency(rounds)


def _throughput(figures: dict[str, Any]) -> None:
    """Bars of images a second at saturation, with the bare engine as a line."""
    figures = {engine: about for engine, about in figures.items() if about["systems"]}
    chart, axes = pyplot.subplots(1, len(figures), figsize=(4.2 * len(figures), 3.4), squeeze=False)
    for axis, (engine, about) in zip(axes[0], figures.items(), strict=True):
        names = list(about["systems"])[::-1]
        rates = [list(about["systems"][name]["images_per_s"].values())[-1] for name in names]
        middles = [rate[0] for rate in rates]
        spread = [[rate[0] - rate[1] for rate in rates], [rate[2] - rate[0] for rate in rates]]
        colours = [OUR_COLOUR if name == OURS else OTHERS[0] for name in names]
        axis.barh(names, middles, xerr=spread, color=colours, error_kw={"ecolor": "#444", "capsize": 2})
        bare = about["bare"] or figures["sampler"]["bare"]
        axis.axvline(bare["images_per_s"], color="#444", linestyle=":", label="our engine in a loop")
        axis.set_title(f"with {ENGINES[engine]}")
        axis.set_xlabel("images a second at saturation")
        axis.legend(fontsize=7, loc="lower right")
    _save(chart, "benchmarks-throughput")


def _latency(rounds: list[dict[str, Any]]) -> None:
    """Share of the calls of the trace answered within so many milliseconds."""
    engines = [engine for engine in ("sampler", "latency-model") if rounds[0]["visits"].get(engine)]
    chart, axes = pyplot.subplots(1, len(engines), figsize=(6 * len(engines), 3.6), squeeze=False)
    for axis, engine in zip(axes[0], engines, strict=True):
        others = iter(OTHERS)
        for name in rounds[0]["visits"][engine]:
            visits = [one["visits"][engine][name] for one in rounds if name in one["visits"][engine]]
            answers = [answer for visit in visits for answer in visit["replay"]["answers"]]
            latencies = sorted(1000 * seconds for _, status, seconds in answers if status == 200)
            shares = [(rank + 1) / len(answers) for rank in range(len(latencies))]
            ours = name == OURS
            axis.step(latencies, shares, color=OUR_COLOUR if ours else next(others), label=name, lw=2 if ours else 1.2)
        axis.set_title(f"the trace at 70% load, {ENGINES[engine]}")
        axis.set_xscale("log")
        axis.set_xlabel("milliseconds")
        axis.set_ylabel("share of calls answered")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="lower right")
    _save(chart, "benchmarks-latency")


def _save(chart: Any, name: str) -> None:
    chart.tight_layout()
    chart.savefig(IMAGES / f"{name}.png", dpi=110, metadata={"Software": None})
    pyplot.close(chart)


if __name__ == "__main__":
    draw()
