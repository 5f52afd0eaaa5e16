"""The table of faults in docs/operations.md is that of the trial's verdict."""

from tests.chaos.table import PAGE, with_table


def test_the_page_shows_the_verdict() -> None:
    assert PAGE.read_text() == with_table(PAGE.read_text())
