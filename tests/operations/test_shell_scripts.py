"""Every shell script of the repository passes shellcheck."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".ci", "bench", "deploy", "distill", "docker", "docs", "jobs", "service", "tests", "worker")


def scripts() -> list[Path]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in files if path.read_bytes().startswith(b"#!/usr/bin/env bash")]


@pytest.mark.needs("shellcheck")
def test_shellcheck_finds_nothing() -> None:
    assert ROOT / ".ci" / "run" in scripts()
    result = subprocess.run(["shellcheck", *map(str, scripts())], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
