"""The paper's protocol (arXiv 2602.03139, Table 1): nine pictures a prompt, two diversities, scores, GenEval."""

from collections.abc import Mapping, Set
from typing import Any

SEEDS = 9
GENEVAL_SEEDS = 4
SPACES = ("dino", "clip")
SCORES = ("pickscore", "imagereward")
ALSO = ("visualquality", "maniqa")
"""Scores of the paper's tables that are reported where they are given."""


def check(spaces: Set[str], scores: Set[str], prompts: object) -> None:
    """Raise ValueError, naming all, when something that the paper's tables need is not given."""
    missing = [f"--features {name}=FOLDER" for name in SPACES if name not in spaces]
    missing += [f"--scores {name}=FOLDER" for name in SCORES if name not in scores]
    missing += [] if prompts else ["--prompts FILE"]
    if missing:
        raise ValueError(f"--protocol paper: needs {', '.join(missing)}, too")


def rows(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The row of Table 1 for the model and for its teacher, and `kept`, the first as a share of the second."""
    found: dict[str, dict[str, float]] = {"model": {}, "teacher": {}}
    for of, row in found.items():
        row |= {name: report["spaces"][name]["diversity"]["all"][of] for name in SPACES}
        row |= {name: score[of] for name, score in report["scores"].items() if name in (*SCORES, *ALSO)}
        if "geneval" in report:
            row["geneval"] = report["geneval"][of]["overall"]
    mine, its = found["model"], found["teacher"]
    return {**found, "kept": {name: mine[name] / its[name] for name in mine if its[name]}}
