"""Each fault that the folder's docstring lists has its test."""

import re
from importlib import import_module

from tests.worker import gpu

OF_THE_STACK = "HIJ"


def test_every_named_test_exists() -> None:
    named = re.findall(r"^([A-J])\. .*: ([\w.]+)\.(\w+)$", gpu.__doc__ or "", re.MULTILINE)
    assert [letter for letter, *_ in named] == list("ABCDEFGHIJ")
    for letter, module, name in named:
        elsewhere = letter in OF_THE_STACK
        assert elsewhere or name.startswith(f"test_{letter.lower()}_")
        assert callable(getattr(import_module(module if elsewhere else f"{gpu.__name__}.{module}"), name))
