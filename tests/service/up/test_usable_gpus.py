"""GPUs that are there count where PyTorch computes on them; here a stand-in for PyTorch says on which."""

from pathlib import Path

import pytest

from jobs.settings import ApiSettings, WorkerSettings
from service.up import supervisor
from service.up.usable_gpus import usable_gpus

GPUS = ["2", "GPU-5d0b", "0"]
TORCH = """
import os

class ones:
    def __init__(self, *shape, device):
        if os.environ["CUDA_VISIBLE_DEVICES"] != {able!r}:
            raise RuntimeError("no kernel image is available for execution on the device")
    def sum(self):
        return self
    item = sum
"""


@pytest.fixture
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text(TORCH.format(able="GPU-5d0b"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("torch")
async def test_a_gpu_counts_where_pytorch_computes_on_it(caplog: pytest.LogCaptureFixture) -> None:
    assert await usable_gpus(GPUS) == ["GPU-5d0b"]
    assert "no worker for GPU 2, 0: the installed PyTorch does not compute on it" in caplog.text


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize(("workers", "dealt"), [("auto", ["GPU-5d0b"]), (3, GPUS)])
async def test_workers_are_dealt_out_over_gpus_that_pytorch_can_use_unless_their_number_is_set(
    monkeypatch: pytest.MonkeyPatch, workers: object, dealt: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(GPUS))
    found: list[list[str]] = []

    def placements(models: object, gpus: list[str], *more: object) -> None:
        found.append(gpus)
        raise ValueError("not to be started")

    monkeypatch.setattr(supervisor, "placements", placements)
    worker = WorkerSettings.model_validate({"workers": workers})
    with pytest.raises(supervisor.CannotServeError, match="not to be started"):
        await supervisor.up(ApiSettings(), worker, ["a model"])
    assert found == [dealt]
