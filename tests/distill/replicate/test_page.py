"""The tables of docs/replication.md are those of the committed results."""

import json
from pathlib import Path

import pytest

from distill.config import DistillConfig
from distill.replicate import emoji_settings, gates
from distill.replicate import experiments as table
from distill.replicate.results import rounded
from docs.scripts import replication_tables as tables

DOCS = Path(__file__).parents[3] / "docs"
DATA = DOCS / "data" / "replication"
RESULTS = json.loads((DATA / "mixture.json").read_text())
PAGE = (DOCS / "replication.md").read_text()
TABLES = tables.mixture(RESULTS)
# "auto" in the recipe, which each machine resolves for itself.
ANY_PRECISION = {"precision": None}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_the_page_is_that_of_the_committed_results(name: str) -> None:
    start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    assert PAGE.count(start) == 1
    assert PAGE.split(start)[1].split(end)[0] == TABLES[name]


@pytest.mark.parametrize("setting", ["emoji-small", "emoji"])
def test_tables_of_the_emoji_settings_are_those_of_the_committed_results(setting: str) -> None:
    results = json.loads((DATA / f"{setting}.json").read_text())
    for name, text in tables.emoji(setting, results).items():
        assert f"<!-- {name} -->\n{text}\n<!-- end of {name} -->" in PAGE
    plan = emoji_settings.SMALL if setting == "emoji-small" else emoji_settings.PAIR
    for name, result in results.items():
        method, _, seed = name.rpartition("-")
        made_with = emoji_settings.configured(plan, method, int(seed)).model_dump(mode="json", by_alias=True)
        # Settings that are newer than the run have their defaults, with which they change nothing.
        trained_with = DistillConfig.model_validate(result["config"]).model_dump(mode="json", by_alias=True)
        assert rounded(trained_with) | ANY_PRECISION == rounded(made_with) | ANY_PRECISION


def test_committed_runs_were_made_with_the_settings_of_the_code() -> None:
    runs = {run.name: run for run in (*table.every(), *table.CONFIRMED)}
    assert RESULTS.keys() <= runs.keys()
    for name, result in RESULTS.items():
        assert result["cell"] == json.loads(json.dumps(rounded(runs[name].settings())))


def result(**final: list[float]) -> dict:
    seeds = [dict(zip(final, row, strict=True)) for row in zip(*final.values(), strict=True)]
    teacher = {"diversity": 0.8, "match": 1.0, "sharp": 1.0}
    return {"curve": [{"updates": 1, "seeds": seeds}], "teacher": {"30": teacher}}


def verdicts(dmd: float, ours: float, sharp: float = 1.0) -> list[bool | None]:
    results = {
        "dmd": result(diversity=[dmd, dmd + 0.01], match=[1.0, 1.0], sharp=[1.0, 1.0]),
        "ours": result(diversity=[ours, ours + 0.01], match=[sharp, sharp], sharp=[sharp, sharp]),
    }
    return [gate.passed for gate in gates.judged(results, "ours")]


def test_each_gate_can_fail() -> None:
    assert verdicts(0.5, 0.75) == [True, True, True, True, True]
    assert verdicts(0.7, 0.75) == [False, False, True, True, True]
    assert verdicts(0.5, 0.9) == [True, True, False, True, True]
    assert verdicts(0.5, 0.75, sharp=0.9) == [True, True, True, False, False]
    assert [gate.passed for gate in gates.judged({}, "ours")] == [None] * 5


def test_an_order_holds_or_not() -> None:
    names = ("k1", "k3", "dp-dmd", "k10", "k30")

    def order(values: list[float]) -> bool | None:
        results = {name: result(diversity=[value]) for name, value in zip(names, values, strict=True)}
        return next(gate.passed for gate in gates.paper_signature(results) if gate.name == "order of the K rows")

    assert order([0.5, 0.6, 0.7, 0.7, 0.695])
    assert not order([0.5, 0.6, 0.7, 0.6, 0.7])
