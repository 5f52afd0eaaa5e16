"""Every shell script of the repository passes shellcheck."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.programs import DEBIAN_PACKAGES

ROOT = Path(__file__).parents[2]
FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and (path.name == ".ci" or path.name[0] != ".")]


def scripts() -> list[Path]:
    files = [path for folder in FOLDERS for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if path.read_bytes().startswith(b"#!/usr/bin/env bash")]


@pytest.mark.needs("shellcheck")
def test_shellcheck_finds_nothing() -> None:
    assert ROOT / ".ci" / "run" in scripts()
    result = subprocess.run(["shellcheck", *map(str, scripts())], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_ci_installs_what_tests_say_they_need() -> None:
    installed = dict(re.findall(r"\[([\w-]+)\]=([\w-]+)", (ROOT / ".ci" / "install-packages").read_text()))
    assert DEBIAN_PACKAGES.items() <= installed.items()
