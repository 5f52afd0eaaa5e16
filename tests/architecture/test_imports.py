"""The imports that modules may have: the contracts in pyproject.toml, and the tests, which nothing else imports."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.python_files import OUTSIDE_TESTS, ROOT, TESTS

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


@pytest.mark.parametrize("contract", [contract["id"] for contract in CONTRACTS])
def test_the_contract_is_kept(contract: str) -> None:
    # In a process of its own: it disables the loggers that exist.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    options = ["--contract", contract, "--no-cache", "--no-logo"]
    checked = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_nothing_outside_the_tests_imports_them() -> None:
    assert [path for path in OUTSIDE_TESTS if any(parts[0] == "tests" for parts in imports(path))] == []


def test_the_command_imports_no_testing_module() -> None:
    assert [parts for parts in imports(Path("fourstep.py")) if "testing" in parts] == []


def test_no_test_imports_from_another_test_or_a_conftest() -> None:
    def is_test(parts: list[str]) -> bool:
        return parts[0] == "tests" and any(part == "conftest" or part.startswith("test_") for part in parts)

    assert [path for path in TESTS if any(map(is_test, imports(path)))] == []


def imports(path: Path) -> list[list[str]]:
    """The dotted names that the file imports, split at the dots; an imported module's own name is the last part."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name.split(".") for name in names]
