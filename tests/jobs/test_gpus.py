from pathlib import Path

import pytest

from jobs.gpus import visible_gpus

LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-0e9a2f1c-5d0b-4b7f-9a53-000000000000)
GPU 1: NVIDIA H200 (UUID: GPU-0e9a2f1c-5d0b-4b7f-9a53-111111111111)
  MIG 3g.71gb     Device  0: (UUID: MIG-6a1c4b9e-0000-5e0f-8f7a-aaaaaaaaaaaa)
  MIG 3g.71gb     Device  1: (UUID: MIG-6a1c4b9e-0000-5e0f-8f7a-bbbbbbbbbbbb)
GPU 2: NVIDIA H200 (UUID: GPU-0e9a2f1c-5d0b-4b7f-9a53-222222222222)
"""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An `nvidia-smi` that answers with LISTED, the only program there is."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ntest \"$1\" = -L && /bin/cat <<'END'\n{LISTED}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


def test_the_driver_lists_gpus_and_the_parts_of_divided_ones(driver: Path) -> None:
    assert [name.rpartition("-")[2] for name in visible_gpus()] == ["0" * 12, "a" * 12, "b" * 12, "2" * 12]
    assert [name[:4] for name in visible_gpus()] == ["GPU-", "MIG-", "MIG-", "GPU-"]


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ("2,0", ["2", "0"]),
        ("GPU-0e9a, MIG-GPU-77/1/0", ["GPU-0e9a", "MIG-GPU-77/1/0"]),
        ("0,0,1", ["0", "1"]),
        ("0,-1,1", ["0"]),
        ("NoDevFiles", []),
        ("-1", []),
        ("", []),
    ],
)
def test_what_is_set_already_is_respected(
    driver: Path, monkeypatch: pytest.MonkeyPatch, given: str, gpus: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == gpus


def test_a_driver_that_fails_or_is_missing_shows_no_gpu(driver: Path) -> None:
    driver.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert visible_gpus() == []
    driver.unlink()
    assert visible_gpus() == []
