"""A stand-in device, and the thread that runs an engine on it."""

from collections.abc import Iterator
from functools import partialmethod
from typing import Any

import pytest
import torch

from tests.worker.gpu.stand_in_device import StandInDevice
from worker.engine_process.device_thread import DeviceThread
from worker.model_folder.loading import LoadedModel, load, served
from worker.testing import tiny_pipelines


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandInDevice:
    device = StandInDevice()
    device.install(monkeypatch)
    return device


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[DeviceThread]:
    if "backend" in request.fixturenames:
        request.getfixturevalue("backend")  # so that it is put back when the thread has ended, which runs its code
    thread = DeviceThread()
    thread.start()
    yield thread
    thread.stop()
    thread.join()


@pytest.fixture
def one_size() -> LoadedModel:
    """A tiny model of one size."""
    return served("tiny", "ab", tiny_pipelines.contract(sizes=[(64, 64)]), tiny_pipelines.build())


@pytest.fixture
def one_size_in_bfloat16() -> LoadedModel:
    """The same in bfloat16, which any processor runs: those without instructions for it emulate them."""
    pipeline = tiny_pipelines.build()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(torch.bfloat16)
    return served("tiny", "ab", tiny_pipelines.contract(sizes=[(64, 64)]), pipeline)


@pytest.fixture(scope="session")
def student() -> LoadedModel:
    """The bundled student, in float32."""
    return load("models/emoji-student", device="cpu", dtype="float32")


@pytest.fixture
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Compile by the backend `request.param`, and leave the compiler as it was."""
    compile_by = partialmethod(torch.nn.Module.compile, backend=request.param)
    monkeypatch.setattr(torch.nn.Module, "compile", compile_by)
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit
    torch._dynamo.reset()
    yield request.param
    torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit = limits
    torch.compiler.set_stance("default")
    torch._dynamo.reset()
