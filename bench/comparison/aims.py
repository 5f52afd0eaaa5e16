"""The aims of the comparison, as measured: each a ratio or a count of one run, met or not."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

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
    rate, p99 = _beside_best_peer(sampler["systems"])
    lit_serve = comparison.get("diffusers", {}).get("systems", {}).get("LitServe")
    sleeping = comparison.get("latency-model", {}).get("systems", {})
    strict = ours.get("bit_equal_strict")
    found = [
        _at_least("images/s through HTTP at saturation ÷ the bare engine in a loop", 0.90, ours["of_bare_engine"]),
        _at_least("images/s ÷ the best peer with our sampler", 1.2, rate),
        _at_least("images/s ÷ diffusers' pipeline behind LitServe", 3.0, lit_serve and _rate(ours) / _rate(lit_serve)),
        _at_most("p99 at 70% load ÷ the best peer's with our sampler", 0.7, p99),
        _at_most("one image alone: service − bare engine, ms", 10, ours["alone_ms"][0] - bare["alone_ms"]["1"]),
        _at_least("teacher ÷ student, time of an image", 12, bare["images_per_s"] / teacher["images_per_s"]),
        _at_most("`fourstep up` to its first image, s", 15, ours["first_picture_s"]),
        _at_least("strict images bit-equal to solo, %", 100, strict and 100 * strict["equal"] / strict["asked"], True),
    ]
    if sleeping:
        rate, p99 = _beside_best_peer(sleeping)
        found += [
            _at_least("latency model: images/s ÷ the best peer", 1.2, rate),
            _at_most("latency model: p99 at 70% load ÷ the best peer's", 0.7, p99),
        ]
    if crash:
        found.append(no_crash(crash))
    return [asdict(aim) for aim in found]


def no_crash(crash: dict[str, Any]) -> Aim:
    killed = crash["systems"][OURS]
    return _at_most("kill −9 of the worker: lost + duplicated", 0, killed["lost"] + killed["duplicated"], counted=True)


def _beside_best_peer(systems: dict[str, Any]) -> tuple[float, float]:
    """Our images a second, and our p99, over those of the best of the others."""
    ours, others = systems[OURS], [system for name, system in systems.items() if name != OURS]
    p99, *their_p99 = (system["replay"]["p99_ms"][0] for system in (ours, *others))
    return _rate(ours) / max(map(_rate, others)), p99 / min(their_p99)


def _rate(system: dict[str, Any]) -> float:
    """Images a second at saturation."""
    return list(system["images_per_s"].values())[-1][0]


def _at_least(what: str, target: float, value: float | None, counted: bool = False) -> Aim:
    return _aim(what, f"≥ {target:g}", value, lambda measured: measured >= target, counted)


def _at_most(what: str, target: float, value: float | None, counted: bool = False) -> Aim:
    return _aim(what, f"≤ {target:g}", value, lambda measured: measured <= target, counted)


def _aim(what: str, target: str, value: float | None, meets: Callable[[float], bool], counted: bool) -> Aim:
    """Judged as it is shown, rounded to two digits."""
    shown = None if value is None else round(value, 2)
    return Aim(what, target, shown, None if shown is None else meets(shown), counted)
