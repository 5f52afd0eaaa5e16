"""`fourstep distill` prints its own words, and none of the libraries'."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.testing import tiny_pipelines


@pytest.mark.slow
def test_progress_bars_and_warnings_of_the_libraries_are_not_printed(tmp_path: Path) -> None:
    teacher = tiny_pipelines.save(tmp_path / "teacher")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    options = ["--teacher", str(teacher), "--prompts", str(prompts), "--out", str(tmp_path / "embeddings")]
    command = [sys.executable, "-m", "fourstep", "distill", "cache", *options]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "1 prompts → " in result.stdout
    assert "Loading" not in result.stderr
    assert "torchvision" not in result.stderr
