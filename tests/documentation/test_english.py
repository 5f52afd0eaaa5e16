"""Pages and docstrings are plain: what is, not what was, and what a thing does first."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HISTORY = re.compile(
    r"\b(the former|formerly|previously|hitherto|nowadays|(is|are) now|the machine before|earlier runs?"
    r"|since the last (run|session|time)|since then|earlier figures)\b",
    re.IGNORECASE,
)
RIDDLES = re.compile(
    r"\b(shall|what more|of its own accord|foreseen|heed|in (any )?company|the very|held against|at hand|let go of"
    r"|told apart|as it comes|thrown away|next to no|even so|the like|works? no more|for who|nothing that shows)\b",
    re.IGNORECASE,
)
FIRST_WORDS = re.compile(r"(What|Of|That|How|Which|Whether|Where|For|When|If)\b")


def _tracked(*patterns: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split()


def _docstrings(path: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("phrases", [HISTORY, RIDDLES])
def test_pages_and_docstrings_say_what_is(phrases: re.Pattern[str]) -> None:
    pages = [(page, 1, (ROOT / page).read_text()) for page in _tracked("*.md") if page != "CHANGELOG.md"]
    docstrings = [(path, line, text) for path in _tracked("*.py") for line, text in _docstrings(path)]
    found = [
        f"{path}:{line + text.count(chr(10), 0, match.start())}: {match[0]}"
        for path, line, text in pages + docstrings
        for match in phrases.finditer(text)
    ]
    assert found == []


def test_docstrings_begin_with_a_noun_or_an_imperative() -> None:
    found = [
        f"{path}:{line}: {text.splitlines()[0]}"
        for path in _tracked("*.py")
        for line, text in _docstrings(path)
        if FIRST_WORDS.match(text)
    ]
    assert found == []
