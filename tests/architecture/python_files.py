"""The Python files of this repository, relative to its root."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = (".ci", "bench", "distill", "docker", "docs", "jobs", "service", "worker")
"""The folders other than `tests` that hold Python files."""

OUTSIDE_TESTS = sorted(
    path.relative_to(ROOT)
    for files in (ROOT.glob("*.py"), *((ROOT / name).rglob("*.py") for name in FOLDERS))
    for path in files
)
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
