"""OpenVINO runs a module's forward pass, for any number of rows, and says nothing about it to anyone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from worker.device.openvino_runtime import OpenVINORuntime


class _Wave(nn.Module):
    """A network that does with a timestep as others do."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.out = nn.Linear(32, 8).requires_grad_(False)

    def forward(self, timesteps: torch.Tensor, *, scale: float = 1.0) -> dict[str, torch.Tensor]:
        angles = timesteps[:, None] * torch.linspace(1, 1e-3, 16) * scale
        waves = torch.cat([angles.sin(), angles.cos()], 1).to(self.out.weight.dtype)
        return {"out": self.out(waves), "waves": waves}


@torch.inference_mode()
def test_a_call_keeps_its_arguments_the_structure_of_its_results_and_any_number_of_rows() -> None:
    module, taken = _Wave(), _Wave()
    runtime = OpenVINORuntime(torch.float32, threads=1)
    runtime.take_over(taken)
    for rows in (2, 1, 5):
        for scale in (1.0, 0.5):
            timesteps = torch.linspace(3, 1000, rows)
            found, expected = taken(timesteps, scale=scale), module(timesteps, scale=scale)
            assert list(found) == ["out", "waves"]
            torch.testing.assert_close(found["out"], expected["out"], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_sealed_runtime_leaves_new_calls_to_pytorch() -> None:
    taken, expected = _Wave(), _Wave()(torch.ones(2), scale=2.0)
    runtime = OpenVINORuntime(torch.float32, threads=1)
    runtime.take_over(taken)
    taken(torch.ones(2))
    runtime.seal()
    assert torch.equal(taken(torch.ones(2), scale=2.0)["out"], expected["out"])  # PyTorch's very bits


@torch.inference_mode()
def test_timesteps_are_not_rounded_to_bfloat16() -> None:
    taken, expected = _Wave(), _Wave()
    taken.to(torch.bfloat16)
    OpenVINORuntime(torch.bfloat16, threads=1).take_over(taken)
    timesteps = torch.tensor([749.0, 501.0, 333.3])
    error = taken(timesteps)["out"] - expected(timesteps)["out"]
    assert float(error.norm() / expected(timesteps)["out"].norm()) < 0.02


@pytest.mark.slow
def test_nothing_is_written_to_the_home_folder_and_no_use_is_reported(tmp_path: Path) -> None:
    code = (
        "import sys, torch\n"
        "from worker.device.openvino_runtime import OpenVINORuntime\n"
        "layer = torch.nn.Linear(2, 2).requires_grad_(False)\n"
        "OpenVINORuntime(torch.float32, 1).take_over(layer)\n"
        "layer(torch.ones(1, 2))\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
    )
    variables = os.environ | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=variables, check=True)
    assert list(tmp_path.iterdir()) == []
