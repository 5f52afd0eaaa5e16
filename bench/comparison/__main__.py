"""Every system in turn, several rounds of it: `make bench`, or with --quick one short round of less.

Writes bench/results/comparison.json; docs/benchmarks.md is then made by `python -m bench.comparison.page`.
"""

import argparse
import importlib.metadata
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from bench import results_file
from bench.comparison import bare, tuning
from bench.comparison.server import DidNotStart
from bench.comparison.summary import summary
from bench.comparison.systems import FRONT_CORE, SYSTEMS, Engine, System, Tuning
from bench.comparison.user_lines import counted
from bench.comparison.visit import Bare, Plan, visit

NAME = "comparison"
VERSIONS = ("fastapi", "uvicorn", "litserve", "bentoml", "ray", "diffusers", "transformers", "torch", "redis")
ROUNDS = results_file.RESULTS / f"{NAME}_rounds.json"
console = Console()


@dataclass(frozen=True)
class Variant:
    """Rounds of visits, the systems for each engine, and the number of calls."""

    rounds: int
    systems: dict[Engine, tuple[str, ...]]
    plans: dict[Engine, Plan]
    bare_images: int
    teacher_images: int


ALL = tuple(SYSTEMS)
FULL = Variant(
    rounds=3,
    systems={"sampler": ALL, "latency-model": ALL, "diffusers": ALL[1:]},
    plans={
        "sampler": Plan(alone=20, closed=((4, 32), (16, 96)), trace=100, overload=40, equality=16, strict=8),
        "diffusers": Plan(alone=10, closed=((16, 64),), trace=60, equality=8),
        "latency-model": Plan(alone=8, closed=((4, 32), (16, 240)), trace=240),
    },
    bare_images=64,
    teacher_images=8,
)
QUICK = Variant(
    rounds=1,
    systems={"sampler": ALL, "latency-model": ALL, "diffusers": ("LitServe", "FastAPI + lock")},
    plans={
        "sampler": Plan(alone=10, closed=((4, 12), (16, 48)), trace=45, equality=8, strict=4),
        "diffusers": Plan(alone=6, closed=((16, 32),), trace=24, equality=0),
        "latency-model": Plan(alone=4, closed=((16, 160),), trace=150),
    },
    bare_images=32,
    teacher_images=8,
)


def fill_round(
    found: dict[str, Any], number: int, variant: Variant, tunings: dict[str, Any], save: Callable[[], None]
) -> None:
    """The bare engines, then every system with every engine; each round begins with another system.

    Figures go into `found` as they come, and `save` is called after each visit: a run cut short leaves what it has.
    """
    engines: list[Engine] = ["sampler", "latency-model"]
    found["bare"] = {engine: bare.measured(engine, variant.bare_images) for engine in engines}
    found["teacher"] = bare.measured("teacher", variant.teacher_images)
    found["visits"] = {engine: {} for engine in variant.systems}
    for engine, names in variant.systems.items():
        reference = bare.bare(found["bare"]["latency-model" if engine == "latency-model" else "sampler"])
        installed = [SYSTEMS[name] for name in names if SYSTEMS[name].installed]
        turned = installed[number % len(installed) :] + installed[: number % len(installed)]
        for system in turned:
            point = tuning.chosen(tunings, engine, system)
            if figures := _visit(system, engine, point, reference, variant.plans[engine]):
                found["visits"][engine][system.name] = figures
                save()


def _visit(system: System, engine: Engine, point: Tuning, reference: Bare, plan: Plan) -> dict[str, Any] | None:
    began = time.perf_counter()
    try:
        figures = visit(system, engine, point, reference, plan)
    except DidNotStart as error:
        console.print(f"[red]{error}")
        return None
    console.print(f"{system.name} with {engine}: {time.perf_counter() - began:.0f} s")
    return figures


def _tuned(variant: Variant, tunings: dict[str, Any]) -> dict[str, Any]:
    """The point at which each system ran."""
    return {
        engine: {name: vars(tuning.chosen(tunings, engine, SYSTEMS[name])) for name in names if SYSTEMS[name].batches}
        for engine, names in variant.systems.items()
    }


def _versions() -> dict[str, str]:
    installed = {dist.metadata["Name"].lower() for dist in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in VERSIONS if name in installed}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.comparison", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, in five minutes")
    parser.add_argument("--shared", action="store_true", help="the machine has other work: said on the page")
    arguments = parser.parse_args()
    variant, tunings = (QUICK if arguments.quick else FULL), results_file.read(tuning.NAME) or {}
    os.sched_setaffinity(0, {FRONT_CORE})
    began, rounds = time.perf_counter(), list[dict[str, Any]]()

    def save() -> None:
        facts = {
            "variant": "quick" if arguments.quick else "full",
            "shared": arguments.shared,
            "minutes": round((time.perf_counter() - began) / 60, 1),
            "versions": _versions(),
            "tuned_by_grid": bool(tunings),
            "tuning": _tuned(variant, tunings),
            "user_lines": counted(),
        }
        results_file.write(NAME, {**facts, "summary": summary(rounds)})
        ROUNDS.write_text("[\n" + ",\n".join(json.dumps(one) for one in rounds) + "\n]\n")

    for number in range(variant.rounds):
        rounds.append({})
        fill_round(rounds[-1], number, variant, tunings, save)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the running system is stopped, too
    main()
