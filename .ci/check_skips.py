"""Prints the skipped tests of a JUnit report; exit status 1 when a reason is not in the list beside this file."""

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

ALLOWED = Path(__file__).with_name("allowed-skips")


def allowed_reasons() -> tuple[str, ...]:
    lines = ALLOWED.read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def skips(report: Path) -> Counter[str]:
    """How many tests were skipped for each reason."""
    elements = ElementTree.parse(report).iter("skipped")
    return Counter(_reason(element) for element in elements if element.attrib["type"] != "pytest.xfail")


def _reason(skipped: ElementTree.Element) -> str:
    """What the test says; of a module that is skipped whole only the text has it."""
    whole = re.search(r"Skipped: (.*?)'?\)?$", skipped.text or "")
    return whole[1] if skipped.attrib["message"] == "collection skipped" and whole else skipped.attrib["message"]


def main(report: Path) -> int:
    refused = 0
    for reason, count in sorted(skips(report).items()):
        allowed = reason.startswith(allowed_reasons())
        refused += not allowed
        print(f"{count:4} skipped, {'allowed' if allowed else 'NOT ALLOWED in CI'}: {reason}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
