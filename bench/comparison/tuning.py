"""Every peer over the same grid of batch size and wait: `python -m bench.comparison.tuning`.

Kept is the point with the most images a second at saturation for each second of p99 at the usual load: half of it
speaks for throughput, half for latency.
"""

import argparse
from typing import Any, get_args

from rich.progress import track

from bench import results_file
from bench.comparison import bare
from bench.comparison.systems import SYSTEMS, Engine, System, Tuning
from bench.comparison.visit import Bare, Plan, visit
from bench.quantiles import quantile

NAME = "comparison_tuning"
PLAN = Plan(alone=1, closed=((16, 32),), trace=36, equality=0)


def chosen(tunings: dict[str, Any], engine: Engine, system: System) -> Tuning:
    """The point that the last run of the tuning chose; diffusers' pipeline is served as our sampler is."""
    of_engine = tunings.get("sampler" if engine == "diffusers" else engine, {})
    found = of_engine.get(system.name, {}).get("chosen")
    return Tuning(**found) if found else Tuning()


def best(points: list[dict[str, Any]]) -> dict[str, Any]:
    return max(points, key=lambda point: point["images_per_s"] / point["p99_s"])["tuning"]


def tune(engine: Engine, system: System, reference: Bare) -> dict[str, Any]:
    points = []
    for tuning in system.grid():
        found = visit(system, engine, tuning, reference, PLAN)
        finished = found["closed"]["16"]["finished"]
        latencies = [seconds for _, _, seconds in found["replay"]["answers"]]
        points.append(
            {
                "tuning": vars(tuning),
                "images_per_s": round(len(finished) / finished[-1], 2),
                "p99_s": round(quantile(latencies, 0.99), 4),
            }
        )
    return {"grid": points, "chosen": best(points)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.comparison.tuning", description=__doc__)
    parser.add_argument("--engines", nargs="+", choices=get_args(Engine), default=["sampler", "latency-model"])
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for engine in arguments.engines:
        reference = bare.bare(bare.measured(engine, 32))
        systems = [system for system in SYSTEMS.values() if system.batches and system.installed]
        found = {system.name: tune(engine, system, reference) for system in track(systems, f"tuning with {engine}")}
        figures[engine] = found
    results_file.write(NAME, figures)


if __name__ == "__main__":
    main()
