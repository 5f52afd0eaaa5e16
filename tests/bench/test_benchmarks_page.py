"""Every figure of docs/benchmarks.md is that of the committed JSON."""

import json

import pytest

from bench import results_file
from bench.comparison.page.readme_table import README, comparison, readme
from bench.comparison.page.render import PAGE, page
from bench.comparison.summary import summary
from bench.comparison.user_lines import counted


@pytest.mark.slow
def test_the_page_rendered_again_is_the_committed_one() -> None:
    assert PAGE.read_text() == page()


def test_the_table_of_the_readme_is_that_of_the_committed_run() -> None:
    assert README.read_text() == readme()
    assert comparison() in README.read_text()


@pytest.mark.slow
def test_the_summary_is_that_of_the_answers_of_every_single_call() -> None:
    committed = json.loads((results_file.RESULTS / "comparison.json").read_text())
    rounds = json.loads((results_file.RESULTS / "comparison_rounds.json").read_text())
    assert json.loads(json.dumps(summary(rounds))) == committed["summary"]
    assert counted() == committed["user_lines"]
