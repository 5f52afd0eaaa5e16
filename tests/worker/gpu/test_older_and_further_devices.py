"""GPUs that lack a number format, and GPUs that are not the first."""

import threading

import pytest
import torch

from jobs.settings import WorkerSettings
from tests.worker.gpu.stand_in_device import StandInDevice
from worker.device import accelerator
from worker.engine_process.compile_thread import CompileThread
from worker.engine_process.device_thread import DeviceThread
from worker.errors import StartFailedError
from worker.families import registry
from worker.model_folder.loading import LoadedModel, device_and_dtype
from worker.model_folder.placing import place
from worker.startup import start_engine
from worker.testing import tiny_pipelines


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_bfloat16_is_the_default_where_the_device_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert device_and_dtype("cuda:1", "auto") == (torch.device("cuda:1"), dtype)
    assert device_and_dtype("cuda:1", "bfloat16") == (torch.device("cuda:1"), torch.bfloat16)


def test_fp8_is_refused_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    pipeline = tiny_pipelines.build()
    with pytest.raises(StartFailedError, match=r"FOURSTEP_QUANTIZE: fp8 needs .* 8\.9"):
        place(pipeline, registry.of(pipeline), torch.device("cuda"), "device", "fp8")


def test_both_threads_of_a_worker_mean_the_devices_number(
    gpu: StandInDevice, device: DeviceThread, one_size: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant: list[tuple[str, int]] = []
    monkeypatch.setattr(
        torch.accelerator, "set_device_index", lambda index: meant.append((threading.current_thread().name, index))
    )
    one_size.network.device = torch.device("cpu", 0)
    engine = device.call(start_engine, WorkerSettings(max_batch=1), lambda *settings: one_size).result()
    monkeypatch.setattr(CompileThread, "_switch_over", lambda thread: (_ for _ in ()).throw(RuntimeError))
    thread = CompileThread(device)
    thread.compile(engine)
    thread.join()
    assert meant == [("device", 0), ("compile", 0)]


def test_a_device_without_a_number_is_the_one_that_is_current(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meant: list[int] = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", meant.append)
    for name in ("cpu", "cuda", "cuda:1"):
        accelerator.make_current(torch.device(name))
    assert meant == [1]
