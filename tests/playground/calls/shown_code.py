"""The code that the page shows, and running it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from jobs.testing.waiting import SAFETY_NET_S

RUN = {"curl": ["bash"], "Python": [sys.executable], "JavaScript": ["node"]}
SUFFIX = {"curl": ".sh", "Python": ".py", "JavaScript": ".mjs"}
LANGUAGES = [
    pytest.param("curl", marks=pytest.mark.needs("curl")),
    "Python",
    pytest.param("JavaScript", marks=pytest.mark.needs("node")),
]


def shown(page: Page, language: str) -> str:
    page.get_by_role("tab", name=language).click()
    return page.get_by_role("tabpanel", name=language).inner_text()


def run(code: str, language: str, folder: Path, **environment: str) -> str:
    """Run the code in an empty folder, and return its output."""
    file = folder / f"call{SUFFIX[language]}"
    file.write_text(code)
    command = [*RUN[language], file.name]
    answer = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=SAFETY_NET_S
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def pictures_in(folder: Path, suffix: str) -> dict[int, np.ndarray]:
    """Seed to pixels of each picture file."""
    files = folder.glob(f"*.{suffix}")
    return {int(file.stem): np.asarray(Image.open(file).convert("RGB"), dtype=int) for file in files}
