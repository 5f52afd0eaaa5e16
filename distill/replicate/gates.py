"""The gates: expected outcomes, fixed before the runs, and whether they came out.

Every gate is of the means over the training seeds; a ratio's 95% interval is a paired bootstrap over them. The ideas
past the paper are chosen among on one drawing of the world and of the seeds, and the one chosen is judged on another.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from distill.evaluation import metrics

Results = Mapping[str, Any]
"""Run name → its JSON."""

Holds = Callable[[metrics.Estimate], bool]

SLACK = 0.01
"""Tolerance of a row's order in a table."""


@dataclass(frozen=True)
class Gate:
    """A condition on the results; `passed` is None where the runs that it needs are not there."""

    name: str
    asked: str
    found: str
    passed: bool | None

    @classmethod
    def of(cls, name: str, asked: str, found: metrics.Estimate | None, holds: Holds) -> "Gate":
        """`found` is None where the runs that it needs are not there."""
        return cls(name, asked, "not run", None) if found is None else cls(name, asked, str(found), holds(found))


def last(results: Results, run: str, metric: str) -> torch.Tensor:
    """The final measurement of a run's students: float64 [seeds]."""
    return torch.tensor([seed[metric] for seed in results[run]["curve"][-1]["seeds"]], dtype=torch.float64)


def of_teacher(results: Results, run: str, metric: str, steps: int = 30) -> torch.Tensor:
    """The teacher's own value, once for each of the run's seeds."""
    value = results[run]["teacher"][str(steps)][metric]
    return torch.full_like(last(results, run, metric), value)


def ratio(results: Results, run: str, to: str, metric: str) -> metrics.Estimate:
    """Ratio of a run's metric to that of another run, or of its "teacher"."""
    below = of_teacher(results, run, metric) if to == "teacher" else last(results, to, metric)
    return metrics.paired_ratio(last(results, run, metric), below)


def diversity_gates(
    lost: metrics.Estimate | None,
    more: metrics.Estimate | None,
    kept: metrics.Estimate | None,
    several_seeds: bool = True,
) -> list[Gate]:
    """The gates for ratios of diversities: DMD's to the teacher's, ours to DMD's, ours to the teacher's.

    Without `several_seeds` an interval is a point, and the gate that asks for one is not passed.
    """
    return [
        Gate.of("DMD loses diversity", "diversity DMD ÷ teacher ≤ .80", lost, lambda r: r.value <= 0.8),
        Gate.of(
            "more than DMD",
            "diversity ÷ DMD's ≥ 1.25, interval above 1.1",
            more,
            lambda r: several_seeds and r.value >= 1.25 and r.low > 1.1,
        ),
        Gate.of("as much as the teacher", "diversity ÷ teacher's in .90–1.00", kept, lambda r: 0.9 <= r.value <= 1.0),
    ]


def judged(results: Results, candidate: str, dmd: str = "dmd") -> list[Gate]:
    """The five gates for `candidate`, compared with plain DMD of the same world and seeds."""

    def of(run: str, to: str, metric: str) -> metrics.Estimate | None:
        there = run in results and (to == "teacher" or to in results)
        return ratio(results, run, to, metric) if there else None

    lost, kept = of(dmd, "teacher", "diversity"), of(candidate, "teacher", "diversity")
    match, sharp = of(candidate, "teacher", "match"), of(candidate, dmd, "sharp")
    return [
        *diversity_gates(lost, of(candidate, dmd, "diversity"), kept),
        Gate.of("prompt match", "match ÷ teacher's ≥ .97", match, lambda r: r.value >= 0.97),
        Gate.of("quality", "share of sharp samples ÷ DMD's ≥ .95", sharp, lambda r: r.value >= 0.95),
    ]


def paper_signature(results: Results) -> list[Gate]:
    """Gates that the paper's own numbers imply, for its own hyperparameters."""
    by_k = ("k1", "k3", "dp-dmd", "k10", "k30")
    by_lambda = ("dmd-detached", "lambda0.01", "dp-dmd", "lambda0.1", "lambda0.5")
    gates = [
        _ordered(results, "K", by_k, "K = 1 is the weakest, more does not lose diversity"),
        _ordered(results, "λ", by_lambda, "more λ, not less diversity"),
        _no_detach(results),
    ]
    if "dmd" in results and "dp-dmd" in results:
        teacher = float(of_teacher(results, "dmd", "diversity").mean())
        dmd, ours = (float(last(results, run, "diversity").mean()) for run in ("dmd", "dp-dmd"))
        recovered = (ours - dmd) / (teacher - dmd)
        asked = "(DP − DMD) ÷ (teacher − DMD) ≥ .20 (paper .18–.58)"
        gates.append(Gate("gap recovered", asked, f"{recovered:.2f}", recovered >= 0.2))
    return gates


def _ordered(results: Results, name: str, runs: tuple[str, ...], asked: str) -> Gate:
    title = f"order of the {name} rows"
    if not all(run in results for run in runs):
        return Gate(title, asked, "not run", None)
    values = [float(last(results, run, "diversity").mean()) for run in runs]
    rises = all(after >= before - SLACK for before, after in itertools.pairwise(values))
    return Gate(title, asked, " → ".join(f"{value:.3f}" for value in values), rises)


def _no_detach(results: Results) -> Gate:
    asked = "without detach: less diversity, and quality not lower"
    if not all(run in results for run in ("dp-dmd", "dp-dmd-nodetach")):
        return Gate("detach", asked, "not run", None)
    diversity, sharp = (ratio(results, "dp-dmd-nodetach", "dp-dmd", metric) for metric in ("diversity", "sharp"))
    found = f"diversity × {diversity.value:.3f}, sharp × {sharp.value:.3f}"
    return Gate("detach", asked, found, diversity.value < 1 and sharp.value >= 1 - SLACK)


def as_json(gates: list[Gate]) -> list[dict[str, Any]]:
    return [asdict(gate) for gate in gates]
