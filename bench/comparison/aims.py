"""The aims of the comparison, as measured: each a ratio or a count of one run, met or not."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

OURS = "fourstep"


@dataclass(frozen=True)
class Aim:
    """`value` None when the run did not measure it; `counted` does not depend on how long anything took."""

    what: str
    target: str
    value: float | None
    met: bool | None
    counted: bool = False


def aims(comparison: dict[str, Any], teacher: dict[str, Any], crash: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the aims as JSON, of the summary of a run, the bare teacher's rate and the trials with a crash."""
    sampler = comparison["sampler"]
    ours, bare = sampler["systems"][OURS], sampler["bare"]
    lit_serve = comparison.get("diffusers", {}).get("systems", {}).get("LitServe")
    sleeping = comparison.get("latency-model", {}).get("systems", {})
    found = [
        _at_least("images/s through HTTP at saturation ÷ the bare engine in a loop", 0.90, ours["of_bare_engine"]),
        _at_least("images/s ÷ the best peer with our sampler", 1.0, _rate_beside_peers(sampler["systems"])),
        _at_least("images/s ÷ diffusers' pipeline behind LitServe", 2.2, lit_serve and _rate(ours) / _rate(lit_serve)),
        _at_most("p99 at 70% load ÷ the best peer's with our sampler", 0.9, _beside_peers(sampler["systems"], "p99")),
        _at_most("one image alone: service − bare engine, ms", 10, ours["alone_ms"][0] - bare["alone_ms"]["1"]),
        _at_least("teacher ÷ student, time of an image", 12, bare["images_per_s"] / teacher["images_per_s"]),
        _at_most("`fourstep up` to its first image, s", 15, ours["first_picture_s"]),
        _equal("strict images bit-equal to solo, %", ours.get("bit_equal_strict")),
        _equal("fast images bit-equal to solo, %", ours.get("bit_equal")),
    ]
    if sleeping:
        found += [
            _at_least("latency model: images/s ÷ the best peer", 1.0, _rate_beside_peers(sleeping)),
            _at_most("latency model: p99 at 70% load ÷ the best peer's", 0.75, _beside_peers(sleeping, "p99")),
            _at_most("latency model: p50 at 70% load ÷ the best peer's", 0.8, _beside_peers(sleeping, "p50")),
            _at_most("latency model: mean at 70% load ÷ the best peer's", 0.8, _beside_peers(sleeping, "mean")),
        ]
    if crash:
        found.append(no_crash(crash))
    return [asdict(aim) for aim in found]


def no_crash(crash: dict[str, Any]) -> Aim:
    killed = crash["systems"][OURS]
    return _at_most("kill −9 of the worker: lost + duplicated", 0, killed["lost"] + killed["duplicated"], counted=True)


def _rate_beside_peers(systems: dict[str, Any]) -> float:
    """Our images a second over those of the best of the others."""
    return _rate(systems[OURS]) / max(_rate(system) for name, system in systems.items() if name != OURS)


def _beside_peers(systems: dict[str, Any], measure: str) -> float:
    """Our latency of the trace, by a quantile or the mean, over that of the best of the others."""
    found = {name: np.ravel(system["replay"][f"{measure}_ms"])[0] for name, system in systems.items()}
    return found.pop(OURS) / min(found.values())


def _rate(system: dict[str, Any]) -> float:
    """Images a second at saturation."""
    return list(system["images_per_s"].values())[-1][0]


def _equal(what: str, counts: dict[str, int] | None) -> Aim:
    share = 100 * counts["equal"] / counts["asked"] if counts else None
    return _at_least(what, 100, share, counted=True)


def _at_least(what: str, target: float, value: float | None, counted: bool = False) -> Aim:
    return _aim(what, f"≥ {target:g}", value, lambda measured: measured >= target, counted)


def _at_most(what: str, target: float, value: float | None, counted: bool = False) -> Aim:
    return _aim(what, f"≤ {target:g}", value, lambda measured: measured <= target, counted)


def _aim(what: str, target: str, value: float | None, meets: Callable[[float], bool], counted: bool) -> Aim:
    """Judged as it is shown, rounded to two digits."""
    shown = None if value is None else round(value, 2)
    return Aim(what, target, shown, None if shown is None else meets(shown), counted)
