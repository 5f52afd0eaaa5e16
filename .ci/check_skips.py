"""Print the skipped tests of a JUnit report; exit status 1 when a reason is not in the list beside this file."""

import ast
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

ALLOWED = Path(__file__).with_name("allowed-skips")


def allowed_reasons() -> tuple[str, ...]:
    lines = ALLOWED.read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def skips(report: Path) -> Counter[str]:
    """Count the tests that were skipped for each reason."""
    elements = ElementTree.parse(report).iter("skipped")
    return Counter(_reason(element) for element in elements if element.get("type") != "pytest.xfail")


def _reason(skipped: ElementTree.Element) -> str:
    """Return the reason that the test gives; a module that is skipped whole has it as the last part of a tuple."""
    if skipped.attrib["message"] != "collection skipped":
        return skipped.attrib["message"]
    *_, reason = ast.literal_eval(skipped.text or "()")
    return reason.removeprefix("Skipped: ")


def main(report: Path) -> int:
    refused = 0
    for reason, count in sorted(skips(report).items()):
        allowed = reason.startswith(allowed_reasons())
        refused += not allowed
        print(f"{count:4} skipped, {'allowed' if allowed else 'NOT ALLOWED in CI'}: {reason}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
