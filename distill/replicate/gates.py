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

SLACK = 0.01
"""Tolerance of a row's order in a table."""


@dataclass(frozen=True)
class Gate:
    """`passed` is None where the runs it needs are not there."""

    name: str
    asked: str
    found: str
    passed: bool | None


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


def judged(results: Results, candidate: str, dmd: str = "dmd") -> list[Gate]:
    """The five gates for `candidate`, compared with plain DMD of the same world and seeds."""

    def of(name: str, asked: str, run: str, to: str, metric: str, holds: Callable[[metrics.Estimate], bool]) -> Gate:
        if run not in results or (to != "teacher" and to not in results):
            return Gate(name, asked, "not run", None)
        found = ratio(results, run, to, metric)
        return Gate(name, asked, str(found), holds(found))

    return [
        of(
            "DMD loses diversity",
            "diversity DMD ÷ teacher ≤ .80",
            dmd,
            "teacher",
            "diversity",
            lambda r: r.value <= 0.8,
        ),
        of(
            "more than DMD",
            "diversity ÷ DMD's ≥ 1.25, interval above 1.1",
            candidate,
            dmd,
            "diversity",
            lambda r: r.value >= 1.25 and r.low > 1.1,
        ),
        of(
            "as much as the teacher",
            "diversity ÷ teacher's in .90–1.00",
            candidate,
            "teacher",
            "diversity",
            lambda r: 0.9 <= r.value <= 1.0,
        ),
        of("prompt match", "match ÷ teacher's ≥ .97", candidate, "teacher", "match", lambda r: r.value >= 0.97),
        of("quality", "share of sharp samples ÷ DMD's ≥ .95", candidate, dmd, "sharp", lambda r: r.value >= 0.95),
    ]


def paper_signature(results: Results) -> list[Gate]:
    """Gates that the paper's own numbers imply, for its own hyperparameters."""
    gates = [
        _ordered(
            results, "K", ("k1", "k3", "dp-dmd", "k10", "k30"), "K = 1 is the weakest, more does not lose diversity"
        ),
        _ordered(
            results,
            "λ",
            ("dmd-detached", "lambda0.01", "dp-dmd", "lambda0.1", "lambda0.5"),
            "more λ, not less diversity",
        ),
        _no_detach(results),
    ]
    if "dmd" in results and "dp-dmd" in results:
        teacher, dmd, ours = (
            float(v.mean())
            for v in (
                of_teacher(results, "dmd", "diversity"),
                last(results, "dmd", "diversity"),
                last(results, "dp-dmd", "diversity"),
            )
        )
        recovered = (ours - dmd) / (teacher - dmd)
        gates.append(
            Gate(
                "gap recovered",
                "(DP − DMD) ÷ (teacher − DMD) ≥ .20 (paper .18–.58)",
                f"{recovered:.2f}",
                recovered >= 0.2,
            )
        )
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
