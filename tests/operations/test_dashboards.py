"""The dashboards are whole, and ask for nothing that fourstep does not measure."""

import itertools
import re
from pathlib import Path

import promql_parser
import pytest
import yaml

from tests.operations import expressions

OF_ANY_PROCESS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}
# Of the engine's process, as the worker's collector names them.
OF_ANY_PROCESS |= {"fourstep_engine_process_resident_memory_bytes"}
ALL = expressions.panel_expressions() | expressions.rule_expressions()


@pytest.mark.parametrize("name", ALL)
def test_every_expression_is_promql_over_names_that_exist(name: str) -> None:
    expression = ALL[name]
    promql_parser.parse(expression)
    recorded = {rule["record"] for rule in expressions.rules() if "record" in rule}
    used = expressions.metric_names(expression)
    assert used
    assert used <= expressions.exposed_names() | OF_ANY_PROCESS | recorded


def test_every_metric_of_the_contract_is_shown_or_watched() -> None:
    everything = " ".join(ALL.values())
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in expressions.exposed_names()}
    assert {name for name in families if name not in everything} == set()


@pytest.mark.parametrize("path", expressions.DASHBOARDS, ids=lambda path: path.stem)
def test_panels_are_explained_and_do_not_overlap(path: Path) -> None:
    panels = expressions.dashboard(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert 0 <= panel["gridPos"]["x"] <= 24 - panel["gridPos"]["w"]
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart


def test_dashboards_are_different_and_read_the_provisioned_source() -> None:
    dashboards = [expressions.dashboard(path) for path in expressions.DASHBOARDS]
    assert [one["uid"] for one in dashboards] == ["fourstep-diversity", "fourstep-service", "fourstep-worker"]
    provisioned = expressions.ROOT / "docker/grafana/provisioning/datasources/prometheus.yml"
    (source,) = yaml.safe_load(provisioned.read_text())["datasources"]
    for one in dashboards:
        assert {target["datasource"]["uid"] for panel in one["panels"] for target in panel["targets"]} == {
            source["uid"]
        }
