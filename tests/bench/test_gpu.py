"""The benchmark of a GPU on a CPU with tiny networks: it runs, keeps what it has, goes on, and fills its page."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.gpu import page, service
from bench.gpu.__main__ import main
from bench.gpu.device import Device
from bench.gpu.figures import FILE, Figure, Figures, read
from tests.architecture.python_files import ROOT
from tests.worker.gpu.stand_in_device import ILLEGAL_ACCESS, OUT_OF_MEMORY

NETWORKS = ("eager_steps", "decoding", "graphs", "attention", "compiled", "strict_bits", "student_and_teacher")
NETWORKS += ("sdxl", "text", "quantized")


@pytest.fixture
def benchmark(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs the command in this process, where PyTorch is there already, and returns what it prints."""
    threads, limit = torch.get_num_threads(), torch._dynamo.config.recompile_limit

    def run(folder: Path, *arguments: str) -> str:
        main(["--out", str(folder), *arguments])
        return capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)
    torch._dynamo.config.recompile_limit = limit
    torch._dynamo.reset()


@pytest.mark.slow
def test_all_that_runs_networks_runs_on_a_cpu_and_a_cut_run_goes_on(
    tmp_path: Path, benchmark: Callable[..., str]
) -> None:
    benchmark(tmp_path, "--device", "cpu", "--tiny", "--parts", *NETWORKS)
    found = read(tmp_path / FILE)
    failed = [figure["how"] for figure in found if "error" in figure]
    assert failed == ["efficient", "efficient", "cudnn", "cudnn"], "these kernels are CUDA's alone"
    assert {figure["how"] for figure in found if figure["figure"] == "step"} == {"eager", "graph", "int8", "fp8"}
    assert all(figure["ms"] > 0 and figure["peak_mib"] > 0 for figure in found if figure["figure"] == "decode")
    assert all(figure["same_bits"] for figure in found if figure["how"] == "graph")
    (bits,) = [figure for figure in found if figure["figure"] == "bits"]
    assert bits["in_every_slot"]
    assert bits["beside_others"]

    lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
    (tmp_path / FILE).write_text("".join(lines[:3]) + lines[3][:20])
    again = benchmark(tmp_path, "--device", "cpu", "--tiny", "--parts", "eager_steps")
    assert [json.loads(line)["rows"] for line in again.splitlines()] == [8, 1, 2, 4, 8]
    assert [figure["rows"] for figure in read(tmp_path / FILE)] == [1, 2, 4, 8] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure this GPU for nine minutes")
def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path: Path, benchmark: Callable[..., str]) -> None:
    assert "not run: torch sees no CUDA device here" in benchmark(tmp_path)
    assert not (tmp_path / FILE).exists()


def test_nothing_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    figures = Figures(tmp_path, seconds=0)
    figures.add("step", lambda: pytest.fail("was begun"), model="sd35m", rows=1)
    assert figures.left == ["step sd35m 1"]
    assert read(tmp_path / FILE) == []


def test_what_fails_is_a_line_and_is_not_tried_again(tmp_path: Path) -> None:
    for _ in range(2):
        Figures(tmp_path, 60).add("step", lambda: {"ms": 1 / 0}, rows=8)
        Figures(tmp_path, 60).add("step", lambda: {"ms": 1.5}, rows=4)
    failed, measured = read(tmp_path / FILE)
    assert (failed["rows"], failed["error"]) == (8, "ZeroDivisionError: division by zero")
    assert (measured["rows"], measured["ms"]) == (4, 1.5)


def test_a_device_without_memory_for_one_figure_measures_the_next(tmp_path: Path) -> None:
    for rows, found_by in enumerate(OUT_OF_MEMORY):

        def fails(found_by: str = found_by) -> Figure:
            raise OUT_OF_MEMORY[found_by]("out of memory")

        Figures(tmp_path, 60).add("step", fails, rows=rows)
    with pytest.raises(torch.AcceleratorError):
        Figures(tmp_path, 60).add("step", _lost, rows=len(OUT_OF_MEMORY))
    lost = ["illegal memory access" in figure["error"] for figure in read(tmp_path / FILE)]
    assert lost == [False] * len(OUT_OF_MEMORY) + [True]


def _lost() -> Figure:
    raise torch.AcceleratorError(ILLEGAL_ACCESS)


def test_a_service_that_is_not_switched_to_compiled_code_is_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = SimpleNamespace(url="http://127.0.0.1", switched=lambda: None)
    monkeypatch.setattr(service, "_up", lambda device: nullcontext(never))
    monkeypatch.setattr(service, "SWITCH_S", 0.0)
    service.service(Device("cpu"), Figures(tmp_path, 60), tiny=True)
    (figure,) = read(tmp_path / FILE)
    assert "no switch to compiled code" in figure["error"]


def test_the_page_has_the_table_of_the_committed_figures() -> None:
    assert f"<!-- gpu -->\n{page.rendered()}\n<!-- end of gpu -->" in (ROOT / page.PAGE).read_text()


def test_a_table_comes_from_a_gpu_alone(tmp_path: Path) -> None:
    assert page.rendered(tmp_path) == page.NOT_MEASURED
    figures = Figures(tmp_path, 60)
    figures.add("facts", lambda: {"device": "cpu"})
    figures.add("step", lambda: {"ms": 12.5, "peak_mib": 3.0}, model="sd35m", size=1024, rows=8, how="graph")
    (tmp_path / FILE).rename(tmp_path / page.COMMITTED)
    assert page.rendered(tmp_path) == page.NOT_MEASURED
    facts = {"figure": "facts", "device": "NVIDIA H200", "torch": "2.13.0", "cuda": "13.0"}
    step = (tmp_path / page.COMMITTED).read_text().splitlines()[1]
    (tmp_path / page.COMMITTED).write_text(f"{json.dumps(facts)}\n{step}\n")
    told = page.rendered(tmp_path)
    assert told.startswith("NVIDIA H200, PyTorch 2.13.0, CUDA 13.0")
    assert "| step | sd35m | 1024 | 8 | graph | ms 12.5, peak_mib 3.0 |" in told
