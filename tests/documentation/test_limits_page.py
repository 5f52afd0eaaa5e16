"""The page of limits names settings, metrics, alerts and answers that exist, and every limit that refuses calls."""

import re

import pytest

from jobs.metrics import LIMITS
from jobs.settings import PREFIX, ApiSettings
from tests.operations import expressions

PAGE = (expressions.ROOT / "docs/limits.md").read_text()
ROWS = [
    dict(zip(names, row, strict=True))
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
    for names, _, *rows in [[line.strip("| \n").split(" | ") for line in table.splitlines()]]
    for row in rows
]


def named(text: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, text))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["limit"][:30])
def test_each_limit_has_what_exists_or_says_why_not(row: dict[str, str]) -> None:
    settings = named(row["setting"], rf"{PREFIX}(\w+)")
    assert {name.lower() for name in settings} <= ApiSettings.model_fields.keys()
    assert settings or row["setting"].startswith(("none: ", "`REDIS_MEMORY`"))
    metrics = named(row["metric"], r"(fourstep_\w+)")
    assert metrics
    assert metrics <= expressions.exposed_names()
    alerts = named(row["alert"], r"(Fourstep\w+)")
    assert alerts <= {rule["alert"] for rule in expressions.rules() if "alert" in rule}
    assert alerts or row["alert"].startswith("none: ")
    watched = " ".join(rule["expr"] for rule in expressions.rules() if rule.get("alert") in alerts)
    assert not alerts or any(metric in watched for metric in metrics) or "ratio_rate" in watched
    problems = named(row["what the caller sees"], r"`([a-z]+-[a-z-]+)`")
    http = (expressions.ROOT / "docs/http.md").read_text()
    assert all(f"`{problem}`" in http for problem in problems)


def test_every_limit_that_refuses_calls_has_a_row() -> None:
    listed = [limit for row in ROWS for limit in re.findall(r'limit="(\w+)"', row["metric"])]
    assert sorted(listed) == sorted(LIMITS)


def test_every_setting_of_a_limit_has_a_row() -> None:
    limits = {name for name in ApiSettings.model_fields if re.search("^max_|_limit$|timeout_s$", name)}
    assert limits == {name.lower() for row in ROWS for name in re.findall(rf"{PREFIX}(\w+)", row["setting"])}


def test_the_alert_of_refusals_watches_the_limits_whose_rows_name_it() -> None:
    (alert,) = [rule for rule in expressions.rules() if rule.get("alert") == "FourstepLimitRefusals"]
    (left_out,) = re.findall(r'limit!~"([\w|]+)"', alert["expr"])
    unwatched = " ".join(row["metric"] for row in ROWS if "FourstepLimitRefusals" not in row["alert"])
    assert sorted(left_out.split("|")) == sorted(re.findall(r'limit="(\w+)"', unwatched))
