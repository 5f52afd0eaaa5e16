"""Every alert fires when it should, stays silent when not, and has a page in the runbook."""

import re
import subprocess

import pytest
import yaml

from tests.operations import expressions

CASES = yaml.safe_load(expressions.RULES.with_name("rules.test.yml").read_text())["tests"]
ALERTS = [rule["alert"] for rule in expressions.rules() if "alert" in rule]
RUNBOOK = (expressions.ROOT / "docs/alerts.md").read_text()


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(alert: str) -> None:
    expected = [test["exp_alerts"] for case in CASES for test in case["alert_rule_test"] if test["alertname"] == alert]
    assert any(expected)
    assert not all(expected)


@pytest.mark.slow
@pytest.mark.needs("promtool")
@pytest.mark.parametrize("arguments", [("check", "rules", "rules.yml"), ("test", "rules", "rules.test.yml")])
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    result = subprocess.run(["promtool", *arguments], cwd=expressions.RULES.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_leads_to_its_page_of_the_runbook() -> None:
    headings = {re.sub(r"\W", "", heading).lower() for heading in re.findall("^#+ (.+)$", RUNBOOK, re.MULTILINE)}
    for rule in expressions.rules():
        if "alert" in rule:
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert (page, anchor) == ("docs/alerts.md", rule["alert"].lower())
            assert anchor in headings
            assert rule["labels"]["severity"] in {"page", "ticket"}


def test_what_an_alert_compares_is_told_from_the_comparison() -> None:
    rule = {"expr": "rate(up[5m]) > 0 and on (instance) time() - up > 900 or absent(up) or (max(up)) < 0.1 * 2"}
    assert expressions.series_read(rule) == ["rate(up[5m])", "time() - up", "max(up)"]
    for alert in expressions.rules():
        assert expressions.series_read(alert), alert
