"""Write the tables and plots of docs/replication.md and docs/method.md from docs/data/replication/. Given a folder of
results, copy them there first.

fourstep distill replicate --bed mixture
python -m docs.scripts.plot_replication build/replicate/mixture
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file

from bench.markdown import filled
from distill.method import dp_dmd
from distill.replicate import experiments
from distill.replicate.mixture import MODES, Mixture
from distill.replicate.mixture_run import Run
from distill.replicate.results import gathered
from distill.replicate.seeded_attention import SeededAttention
from docs.scripts import replication_tables as tables
from worker.sampling.noise_schedule import FLOW

DOCS = Path(__file__).parents[1]
DATA = DOCS / "data" / "replication"
IMAGES = DOCS / "images"
PAGE = DOCS / "replication.md"
COLOURS = {
    "dmd": "#c0392b",
    "dmd-detached": "#e59866",
    "dp-dmd-nodetach": "#8e44ad",
    "dp-dmd": "#2a7f62",
    "strong-anchor": "#2471a3",
}
TEACHER = "#444444"
SHOWN = {"teacher": "teacher, 30 steps", "dmd": "DMD", "dp-dmd": "DP-DMD"}
SHOWN_CLASS = 0
POINTS = 128


def keep(results: Path) -> None:
    """Copy the results in a folder, rounded, under the folder's name, which is the setting's. Of the mixture, also
    sample the students that docs/method.md shows."""
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / f"{results.name}.json").write_text(json.dumps(gathered(results)) + "\n")
    if results.name == "mixture":
        (DATA / "wheels.json").write_text(json.dumps(_wheels(results)) + "\n")


@torch.no_grad()
def _wheels(results: Path) -> dict[str, Any]:
    """The ends of the first step and of the sampling of one class, for teacher and students from equal
    noise."""
    world = Mixture.drawn(256)
    labels = torch.full((POINTS,), SHOWN_CLASS)
    noise = torch.randn(POINTS, 256, generator=torch.Generator().manual_seed(3))
    teacher, method = world.guided(labels, 3.5), Run("x").at(0, torch.Generator())
    found = {
        "teacher": {
            "first": _on_wheel(world, dp_dmd.anchor_target(teacher, noise, method)),
            "sample": _on_wheel(world, FLOW.solve(teacher, noise, method.teacher_grid)),
        }
    }
    for name in ("dmd", "dp-dmd"):
        result = json.loads((results / f"{name}.json").read_text())
        seeds = result["size"]["seeds"]
        network = SeededAttention(world, seeds, result["size"]["width"])
        network.load_state_dict(load_file(results / f"{name}.safetensors"))
        student = network.conditional(labels.repeat(seeds))
        first, sample = dp_dmd.rollout(student, noise.repeat(seeds, 1), method)
        found[name] = {"first": _on_wheel(world, first[:POINTS]), "sample": _on_wheel(world, sample[:POINTS])}
    return found


def _on_wheel(world: Mixture, x: torch.Tensor) -> list[list[float]]:
    """[N, 256] → [N, 2]: the class's modes are spokes of a wheel, and how much of each mode's mean is in x pulls that
    way. A sample of one mode lies on the rim, the mean of all at the hub."""
    means = world.means[SHOWN_CLASS * MODES : (SHOWN_CLASS + 1) * MODES]
    parts = torch.linalg.lstsq(means.T, x.T).solution.T
    turn = 2 * math.pi * torch.arange(MODES) / MODES
    return [[round(v, 3) for v in row] for row in (parts @ torch.stack([turn.cos(), turn.sin()], 1)).tolist()]


def plot_modes() -> None:
    """docs/images/modes.png."""
    wheels = json.loads((DATA / "wheels.json").read_text())
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 6.6), layout="constrained")
    turn = [2 * math.pi * k / MODES for k in range(MODES)]
    for column, (name, title) in enumerate(SHOWN.items()):
        colour = COLOURS.get(name, TEACHER)
        for row, part in enumerate(("first", "sample")):
            axis = axes[row, column]
            axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="#cccccc"))
            axis.scatter([math.cos(a) for a in turn], [math.sin(a) for a in turn], s=160, color="#eeeeee", zorder=0)
            points = wheels[name][part]
            axis.scatter(*zip(*points, strict=True), s=9, alpha=0.45, color=colour, linewidths=0)
            if row == 1:
                _name_shares(axis, points, turn)
            axis.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), xticks=[], yticks=[], aspect="equal")
            axis.set_frame_on(False)
        axes[0, column].set_title(title, fontsize=11)
    axes[0, 0].set_ylabel("where the first step points", fontsize=10)
    axes[1, 0].set_ylabel("samples", fontsize=10)
    figure.savefig(IMAGES / "modes.png", dpi=80)


def _name_shares(axis: Any, points: list[list[float]], turn: list[float]) -> None:
    """At each spoke's end, the share of the samples in that mode."""
    counts = [0] * MODES
    for x, y in points:
        counts[round(math.atan2(y, x) / (2 * math.pi / MODES)) % MODES] += 1
    for angle, count in zip(turn, counts, strict=True):
        axis.text(1.28 * math.cos(angle), 1.28 * math.sin(angle), f"{100 * count / len(points):.0f}%",
                  ha="center", va="center", fontsize=8, color="#555555")  # fmt: skip


def plot_curves(results: dict[str, Any]) -> None:
    """docs/images/replication-curves.png: Figure 5 in small."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    titles = {"diversity": "diversity (Eq. 9)", "tv": "distance from the teacher's modes (TV)",
              "paired": "same mode as the teacher, same noise"}  # fmt: skip
    for axis, (metric, title) in zip(axes, titles.items(), strict=True):
        for name, colour in COLOURS.items():
            if name not in results:
                continue
            curve = results[name]["curve"]
            at = [point["updates"] for point in curve]
            values = torch.tensor([[seed[metric] for seed in point["seeds"]] for point in curve])
            axis.plot(at, values.mean(1), color=colour, label=name, marker="o", markersize=3)
            axis.fill_between(at, values.min(1).values, values.max(1).values, color=colour, alpha=0.15, linewidth=0)
        if metric == "diversity":
            axis.axhline(results["dmd"]["teacher"]["30"][metric], color=TEACHER, linestyle="--", label="teacher")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("student updates", fontsize=9)
        axis.grid(alpha=0.25)
    axes[0].legend(fontsize=8)
    figure.savefig(IMAGES / "replication-curves.png", dpi=80)


def plot_settings(results: dict[str, Any]) -> None:
    """docs/images/replication-settings.png: Tables 3 and 4 as curves."""
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), layout="constrained", sharey=True)
    by_k = [(str(run.k[0]), run.name) for run in experiments.ANCHORS]
    by_lambda = [("0", "dmd-detached"), *((f"{run.lambda_[0]:g}", run.name) for run in experiments.WEIGHTS)]
    for axis, rows, title in ((axes[0], by_k, "K, teacher steps of 30 (λ = .05)"), (axes[1], by_lambda, "λ (K = 5)")):
        rows = [(label, name) for label, name in rows if name in results]
        values = torch.tensor([[s["diversity"] for s in results[name]["curve"][-1]["seeds"]] for _, name in rows])
        axis.plot([label for label, _ in rows], values.mean(1), color=COLOURS["dp-dmd"], marker="o")
        axis.plot([label for label, _ in rows], values, color=COLOURS["dp-dmd"], alpha=0.25, linestyle="", marker=".")
        dmd = torch.tensor([seed["diversity"] for seed in results["dmd"]["curve"][-1]["seeds"]]).mean()
        axis.axhline(dmd, color=COLOURS["dmd"], linestyle="--", label="DMD")
        axis.axhline(results["dmd"]["teacher"]["30"]["diversity"], color=TEACHER, linestyle="--", label="teacher")
        axis.set_xlabel(title, fontsize=9)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("diversity (Eq. 9)", fontsize=9)
    axes[0].legend(fontsize=8)
    figure.savefig(IMAGES / "replication-settings.png", dpi=80)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    found = json.loads((DATA / "mixture.json").read_text())
    shown = tables.mixture(found)
    for setting in ("emoji-small", "emoji"):
        shown |= tables.emoji(setting, json.loads((DATA / f"{setting}.json").read_text()))
    PAGE.write_text(filled(PAGE.read_text(), shown))
    plot_modes()
    plot_curves(found)
    plot_settings(found)
