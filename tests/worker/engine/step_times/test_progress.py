"""A terminal shows how far the warm-up of an engine is; a file shows nothing of it."""

import io
import sys
from pathlib import Path

import pytest

from jobs.structured_logging import fresh_line, progress
from worker.engine.engine import Engine
from worker.model_folder.loading import load
from worker.startup import quiet_libraries
from worker.testing import tiny_pipelines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_pipelines.save(tmp_path)


def _start(folder: Path) -> Engine:
    quiet_libraries()
    engine = Engine(load(str(folder), "cpu"), 2)
    engine.warm_up()
    return engine


def test_a_terminal_shows_stage_batch_and_how_many_there_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    sizes = list(_start(folder).step_times)
    shown = terminal.getvalue()
    assert f"reading the weights of {folder}" in shown
    for number, (height, width) in enumerate(sizes, 1):
        assert f"warming up: {width}×{height} in batches of 2, " in shown
        assert f"timing the steps: {width}×{height}, {number} of {len(sizes)}" in shown
    batches = 2 * len(sizes)
    assert all(f", {number} of {batches}" in shown for number in range(1, batches + 1))


def test_a_log_file_has_none_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    _start(folder)
    assert file.getvalue() == ""


def test_the_line_is_wiped_and_the_cursor_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress("reading [weights]", 3) as begin:
        begin("the first")
        assert "reading [weights]: the first, 1 of 3" in terminal.getvalue()
        assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    assert terminal.getvalue().endswith("\x1b[2K")
    assert (fresh_line(terminal), fresh_line(io.StringIO())) == ("\r\x1b[K", "")
