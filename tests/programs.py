"""Programs that some tests run and not every machine has."""

import shutil
from typing import NoReturn

import pytest

# Where Debian has them, as in .ci/install-packages.
DEBIAN_PACKAGES = {
    "chromium": "chromium",
    "curl": "curl",
    "node": "nodejs",
    "npm": "npm",
    "openssl": "openssl",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "redis-server": "redis-server",
    "shellcheck": "shellcheck",
}
OTHER_NAMES = {"chromium": ("chromium-browser", "google-chrome")}


def find(program: str) -> str | None:
    """The path of the program under any of its names, or None."""
    return next(filter(None, map(shutil.which, (program, *OTHER_NAMES.get(program, ())))), None)


def skip_without(*programs: str) -> None:
    """Skip the running test when one of the programs is missing, and say how it is installed."""
    for program in programs:
        if find(program) is None:
            skip_for_lack_of(program)


def skip_for_lack_of(program: str, but: str = "") -> NoReturn:
    package = DEBIAN_PACKAGES.get(program)
    pytest.skip(f"needs {program}{but}" + (f": apt-get install {package}" if package else ""))
