"""Each fault that the folder's docstring lists has its test."""

import re
from importlib import import_module

from tests.worker import gpu


def test_every_named_test_exists() -> None:
    named = re.findall(r"^([A-G])\. .*: (\w+)\.(\w+)$", gpu.__doc__ or "", re.MULTILINE)
    assert [letter for letter, *_ in named] == list("ABCDEFG")
    for letter, module, name in named:
        assert name.startswith(f"test_{letter.lower()}_")
        assert callable(getattr(import_module(f"{gpu.__name__}.{module}"), name))
