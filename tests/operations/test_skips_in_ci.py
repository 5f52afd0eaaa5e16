"""CI lets a test be skipped only for a reason on its list."""

import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci"
MODULE = """
import pytest

pytest.importorskip("no_such_module", reason="{module}")
"""
TESTS = """
import pytest

@pytest.mark.xfail(reason="known")
def test_that_fails():
    assert False

@pytest.fixture
def program():
    pytest.skip("{fixture}")

def test_of_a_program(program):
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "fixture", "code"),
    [
        ("needs the extra `docs`: pip install it", "needs a CUDA device", 0),
        ("needs the extra `docs`: pip install it", "needs chromium: install it", 1),
        ("needs something", "needs a CUDA device", 1),
    ],
)
def test_each_skip_is_judged_by_its_reason(tmp_path: Path, module: str, fixture: str, code: int) -> None:
    (tmp_path / "test_module.py").write_text(MODULE.format(module=module))
    (tmp_path / "test_tests.py").write_text(TESTS.format(fixture=fixture))
    report = tmp_path / "report.xml"
    pytest_here = ["-m", "pytest", "-c", "/dev/null", f"--rootdir={tmp_path}", f"--junitxml={report}", str(tmp_path)]
    subprocess.run([sys.executable, *pytest_here], capture_output=True, check=True)
    checked = subprocess.run([sys.executable, str(CI / "check_skips.py"), str(report)], capture_output=True, text=True)
    assert checked.returncode == code, checked.stdout + checked.stderr
    assert len(checked.stdout.splitlines()) == 2
    assert all(reason in checked.stdout for reason in (module, fixture))
    assert checked.stdout.count("NOT ALLOWED") == code
