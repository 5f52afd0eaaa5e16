"""The figures in docs/scaling.md are those that were measured."""

import json

from bench import scaling_tables


def test_the_page_holds_the_tables_of_the_results() -> None:
    page = scaling_tables.PAGE.read_text()
    assert scaling_tables.rendered(page, json.loads(scaling_tables.RESULTS.read_text())) == page
