"""The table of faults in the docs."""

import inspect
import re

from tests.chaos.failover import SCENARIOS
from tests.chaos.faults import Faults
from tests.chaos.table import PAGE, SEEN, with_table


def test_the_page_holds_the_table_of_the_verdicts() -> None:
    page = PAGE.read_text()
    assert with_table(page) == page


def test_every_fault_says_what_callers_see() -> None:
    injected = set(re.findall(r'self\.done\["(.*?)"\]', inspect.getsource(Faults)))
    assert injected
    assert injected | {scenario.fault for scenario in SCENARIOS.values()} <= set(SEEN)
