"""Draw docs/images/run-health.png from the logs in docs/data/. Given a folder of new runs, copy their logs there first.

fourstep distill train --config docs/data/healthy/settings.yaml --run build/health/healthy
fourstep distill train --config docs/data/collapsed/settings.yaml --run build/health/collapsed
python docs/scripts/plot_run_health.py build/health
"""

import json
import shutil
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

DOCS = Path(__file__).parents[1]
COLOURS = {"healthy": "#2a7f62", "collapsed": "#c0392b"}
PANELS = {
    "latent_diversity": "spread of the grid's latents over seeds",
    "sample_std": "standard deviation of the student's latents",
    "critic": "critic's loss (logarithmic)",
    "critic_grad_norm": "critic's gradient norm (logarithmic)",
    "grad_norm": "student's gradient norm (logarithmic)",
    "diversity": "diversity loss, first step",
    "relative_gap": "gap of the scores: here no help either",
    "dmd": "DMD loss: says nothing",
}
LOGARITHMIC = {"critic", "critic_grad_norm", "grad_norm"}
GRID_COLUMNS = 10


def keep(runs: Path) -> None:
    """Copy each run's log to docs/data/, and the last columns, the vaguer prompts, of its last grid."""
    for name in COLOURS:
        shutil.copy(runs / name / "log.jsonl", DOCS / "data" / name / "log.jsonl")
        with Image.open(max((runs / name).glob("grid-*.png"))) as grid:
            cell = grid.height // 4
            shown = grid.convert("RGB").crop((grid.width - GRID_COLUMNS * cell, 0, grid.width, grid.height))
            small = shown.resize((GRID_COLUMNS * 64, 4 * 64), Image.Resampling.LANCZOS)
            small.quantize(128).save(DOCS / "data" / name / "grid.png", optimize=True)


def plot() -> None:
    """One panel for each metric, both runs in it."""
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.6), layout="constrained")
    for axis, (metric, title) in zip(axes.flat, PANELS.items(), strict=True):
        for name, colour in COLOURS.items():
            lines = [json.loads(line) for line in (DOCS / "data" / name / "log.jsonl").read_text().splitlines()]
            points = [(line["step"], line[metric]) for line in lines if metric in line]
            if points:
                marker = "o" if metric == "latent_diversity" else ""
                axis.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=name)
        axis.set_title(f"{metric}\n{title}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        if metric in LOGARITHMIC:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
    figure.supxlabel("student updates", fontsize=9)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(DOCS / "images" / "run-health.png", dpi=80)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    plot()
