"""A run of the comparison from its start to the page, with canned visits in place of servers."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import results_file
from bench.comparison import __main__ as comparison
from bench.comparison import bare
from bench.comparison.page import render as page
from bench.comparison.server import DidNotStart
from bench.comparison.systems import System

BARE = {"images_per_s": 10.0, "alone_s": {"1": 0.1, "2": 0.2, "4": 0.4}, "evaluations": 4}
TEACHER = {"images_per_s": 0.8, "evaluations": 60}
KILLED = {"calls": 24, "lost": 0, "duplicated": 0, "serves_again_s": 4.0}


def _visit(system: System, engine: str, *_: Any) -> dict[str, Any]:
    if system.name == "Ray Serve":
        raise DidNotStart("no")
    answers = [(1, 200, 0.12), (2, 200, 0.7), (4, 504, 1.0)]
    loop = {"answers": [(1, 200, 0.1)] * 8, "finished": [0.1 * (i + 1) for i in range(8)], "batches": {"8": 1}}
    opened = {"answers": answers, "batches": {"1": 2, "2": 1}, "cpu_s_per_image": 0.1}
    found = {"first_picture_s": 4.2, "memory_mib": 500.0, "alone": [(1, 200, 0.105)], "closed": {"16": loop}}
    found |= {"replay": opened, "overload": opened, "bit_equal": {"asked": 4, "equal": 3}}
    return found | ({"bit_equal_strict": {"asked": 4, "equal": 4}} if system.ours else {})


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the files of a quick run of canned visits."""
    cores = os.sched_getaffinity(0)
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    monkeypatch.setattr(comparison, "ROUNDS", tmp_path / "comparison_rounds.json")
    monkeypatch.setattr(comparison, "visit", _visit)
    monkeypatch.setattr(bare, "measured", lambda engine, images: dict(TEACHER if engine == "teacher" else BARE))
    monkeypatch.setattr(sys, "argv", ["bench.comparison", "--quick"])
    comparison.main()
    os.sched_setaffinity(0, cores)
    return tmp_path


@pytest.mark.slow
def test_a_run_leaves_figures_and_every_answer(results: Path) -> None:
    figures = json.loads((results / "comparison.json").read_text())
    ours = figures["summary"]["sampler"]["systems"]["fourstep"]
    assert figures["variant"] == "quick"
    assert ours["replay"]["goodput"] == round(1 / 7, 3)  # 0.7 s is over three times the 0.2 s of two images alone
    assert ours["replay"]["shed"] == round(4 / 7, 3)
    assert ours["of_bare_engine"] == 1.0
    [kept] = json.loads((results / "comparison_rounds.json").read_text())
    assert kept["visits"]["sampler"]["fourstep"]["replay"]["answers"][2] == [4, 504, 1.0]
    assert figures["machine"].keys() >= {"cpu_model", "python", "torch", "threads"}


@pytest.mark.slow
def test_the_page_tells_them(results: Path) -> None:
    (results / "comparison_crash.json").write_text(json.dumps({"shared": True, "systems": {"fourstep": KILLED}}))
    told = page.page(results)
    assert "| teacher ÷ student, time of an image | ≥ 12 | 12.5 | met |" in told
    assert "| one image alone: service − bare engine, ms | ≤ 10 | 5 | met |" in told
    assert "| **fourstep** | 24 | 0 | 0 | yes |" in told
    assert "| our sampler | **fourstep, strict** | 100% | 4 of 4 |" in told
    assert "| Ray Serve | 105" not in told  # it did not start, and is not made up
    assert "$" not in told


@pytest.mark.slow
def test_no_time_is_told_of_a_machine_with_other_work(results: Path) -> None:
    figures = json.loads((results / "comparison.json").read_text())
    (results / "comparison.json").write_text(json.dumps({**figures, "shared": True}))
    told = page.page(results)
    assert "| teacher ÷ student, time of an image | ≥ 12 | not measured | not measured |" in told
    assert "| strict images bit-equal to solo, % | ≥ 100 | 100 | met |" in told
    assert "105" not in told.partition("## How it was measured")[2]
    assert "images/s at 16" not in told.partition("## The grid")[0]


@pytest.mark.slow
def test_its_plots_are_drawn(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `docs`: pip install --editable '.[docs]'")
    from bench.comparison.page import plots

    monkeypatch.setattr(plots, "IMAGES", tmp_path)
    plots.draw()
    assert {path.name for path in tmp_path.glob("*.png")} == {"benchmarks-throughput.png", "benchmarks-latency.png"}
