"""The GELU of compiled networks is torch's to rounding, and stays out of the networks as they were loaded."""

import torch
from diffusers.models.activations import GELU
from torch.nn import functional as F

from worker.device.fast_gelu import fast_gelu
from worker.model_folder.loading import served
from worker.testing import tiny_pipelines


def test_it_is_torchs_to_rounding() -> None:
    x = torch.cat([torch.linspace(-12, 12, 10_001), torch.tensor([0.0, 1e-30, -1e-30, 1e10, -1e10, 1e30, -1e30])])
    exact = F.gelu(x.double(), approximate="tanh")
    assert torch.allclose(fast_gelu(x).double(), exact, rtol=1e-5, atol=1e-6)
    assert torch.equal(fast_gelu(x.bfloat16()), F.gelu(x.bfloat16(), approximate="tanh"))


def test_only_the_twin_that_is_compiled_uses_it() -> None:
    network = served("tiny", "ab", tiny_pipelines.contract(), tiny_pipelines.build()).network

    def fast(one: torch.nn.Module) -> set[bool]:
        return {module.__dict__.get("gelu") is fast_gelu for module in one.modules() if isinstance(module, GELU)}

    assert fast(network.compiled().denoiser) == {True}
    assert fast(network.denoiser) == {False}
