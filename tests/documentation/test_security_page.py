"""Every line of the page of security has a test, in the file that it names or in test_security.py."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][1:]
HELD_BY = {
    "endless or slow request heads": (
        "an_endless_head_ends_the_connection",
        "a_head_that_does_not_end_is_not_waited_for",
    ),
    "line breaks in values that come back as a header": ("nothing_a_client_sends_becomes_a_header",),
    "paths out of `/images` or `/static`": ("no_path_leads_out",),
    "guessing keys by timing": ("every_key_is_compared_in_constant_time",),
    "others' images": ("jobs_and_images_have_addresses_that_cannot_be_guessed",),
    "Redis commands or scripts in a prompt or key": ("what_clients_name_freely_is_hashed_in_redis",),
    "requests from inside the network (SSRF)": (
        "the_api_has_no_http_client_and_no_field_is_an_address_but_for_webhooks",
    ),
    "terminal codes in a prompt, read by an operator": (
        "terminal_codes_of_a_prompt_do_not_reach_an_operators_terminal",
    ),
    "an answer that explodes in `fourstep generate`, or writes to the terminal": (
        "an_answer_that_explodes_is_not_read",
        "what_a_server_says_is_printed_as_text",
    ),
}
"""The tests in test_security.py of the lines that name no file."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][:40])
def test_each_line_has_a_test(row: list[str]) -> None:
    _, attack, defence = row
    named = re.findall(r"`([\w/]+\.py)`", defence)
    assert bool(named) != (attack in HELD_BY)
    for file in named:
        found = [path for path in (ROOT / "tests").rglob(Path(file).name) if str(path).endswith(f"/{file}")]
        assert found, file
        assert all("def test_" in path.read_text() for path in found)
    tests = (ROOT / "tests/service/test_security.py").read_text()
    assert all(f"def test_{name}(" in tests for name in HELD_BY.get(attack, ()))


def test_each_named_test_holds_a_line() -> None:
    assert set(HELD_BY) <= {attack for _, attack, _ in ROWS}
