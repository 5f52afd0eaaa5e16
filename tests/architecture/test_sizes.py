"""No file too long to read in one go, no folder too full to survey."""

from collections import Counter

from tests.architecture.python_files import OUTSIDE_TESTS, TESTS

MAX_LINES = 300
MAX_MODULES = 15


def test_no_file_is_too_long() -> None:
    lines = {str(path): len(path.read_text().splitlines()) for path in OUTSIDE_TESTS}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_no_folder_has_too_many_modules() -> None:
    modules = Counter(str(path.parent) for path in (*OUTSIDE_TESTS, *TESTS))
    assert {folder: count for folder, count in modules.items() if count > MAX_MODULES} == {}
