"""The three settings of `fourstep distill replicate`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from distill.replicate import experiments, gates, mixture_setting
from distill.replicate.mixture_run import Run
from distill.replicate.results import gathered, write_json
from distill.replicate.students import Size

Setting = Literal["mixture", "emoji-small", "emoji"]

QUICK_SIZE = Size(seeds=2, width=16, batch=4, samples=8)
QUICK_RUN: dict[str, Any] = {"dimension": 16, "updates": 2}


def run_setting(setting: Setting, out: Path, work: Path, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Train and measure the runs of `setting` that `out` does not have; returns its gates and writes them to
    `out`/gates.json.

    `quick` takes every stage at a size that shows nothing. Raises ValueError when `out` holds results of other
    configurations, OSError when the artwork of `emoji-small` can be neither found in `work` nor fetched.
    """
    if setting == "mixture":
        return _mixture(out, quick)
    from distill.replicate import emoji_settings

    if setting == "emoji-small":
        emoji_settings.small(replace(emoji_settings.QUICK, guidance=1.0) if quick else emoji_settings.SMALL, out, work)
    else:
        emoji_settings.pair(emoji_settings.QUICK if quick else emoji_settings.PAIR, out)
    found = {"emoji": gates.as_json(emoji_settings.judged(gathered(out)))}
    write_json(out / "gates.json", found)
    return found


def _mixture(out: Path, quick: bool) -> dict[str, list[dict[str, Any]]]:
    runs: tuple[Run, ...] = (*experiments.every(), *experiments.CONFIRMED)
    if quick:
        runs = tuple(replace(run, **QUICK_RUN) for run in runs)
    mixture_setting.train_and_measure(runs, QUICK_SIZE if quick else Size(), out)
    results = {run.name: json.loads((out / f"{run.name}.json").read_text()) for run in runs}
    found = {
        "paper": gates.as_json(gates.judged(results, "dp-dmd") + gates.paper_signature(results)),
        "preset": gates.as_json(gates.judged(results, "preset", dmd="dmd-again")),
    }
    write_json(out / "gates.json", found)
    return found
