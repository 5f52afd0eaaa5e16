"""The models of the benchmark: published architectures with random weights, or tiny ones, and inputs for them."""

import copy
from typing import Any

import torch

from bench.gpu.device import Device
from worker.device.shared_weights import copy_sharing_weights
from worker.engine.denoising_step import DenoisingStep, Guidance, StepInputs
from worker.families import registry
from worker.families.network import Network
from worker.memory.plan import empty_embeddings
from worker.model_folder.contract import own_contract
from worker.model_folder.loading import LoadedModel, served
from worker.model_folder.placing import Quantize, place
from worker.testing import published_pipelines, tiny_pipelines, tiny_sdxl_pipelines

PUBLISHED = {"sd35m": published_pipelines.stable_diffusion_3, "sdxl": published_pipelines.stable_diffusion_xl}
TINY = {"sd35m": tiny_pipelines.build, "sdxl": tiny_sdxl_pipelines.build}

GUIDANCE_SCALE = 3.5


class Models:
    """Makes models on `device` when they are asked for, one at a time."""

    def __init__(self, device: Device, tiny: bool) -> None:
        self._device, self._tiny = device, tiny
        self.sides = (32, 64) if tiny else (512, 1024)
        self._made: tuple[Any, LoadedModel] | None = None

    def get(self, name: str, quantize: Quantize | None = None) -> LoadedModel:
        """Return Stable Diffusion 3.5 Medium ("sd35m") or SDXL ("sdxl"), without text encoders."""
        if self._made is None or self._made[0] != (name, quantize):
            self._made = None
            self._device.free()
            torch.manual_seed(0)
            device = self._device.torch
            pipeline: Any = TINY[name]() if self._tiny else PUBLISHED[name](device, encoders=False)
            place(pipeline, registry.of(pipeline), device, "device", quantize)
            contract = own_contract(pipeline, 4, sizes=[(side, side) for side in self.sides])
            self._made = (name, quantize), served(name, "0" * 64, contract, pipeline)
        return self._made[1]


def step_of(model: LoadedModel, network: Network | None = None) -> DenoisingStep:
    """Return the engine's step, by `network` in place of the model's own."""
    network = network or model.network
    return DenoisingStep(network.predict, model.table.to(network.device), network.guide)


def inputs_of(model: LoadedModel, side: int, rows: int, guided: bool = False) -> StepInputs:
    """Return a batch at the first step, always of the same numbers; row i does not depend on how many there are.

    Under guidance the network is evaluated twice for each row.
    """
    network, drawn = model.network, torch.Generator().manual_seed(0)
    empty = empty_embeddings(model, 1)
    shape = network.latent_shape(side, side)

    def random(part: torch.Tensor) -> torch.Tensor:
        if not part.is_floating_point():
            return part.expand(rows, *part.shape[1:]).clone()
        numbers = [torch.randn(part.shape[1:], generator=drawn) for _ in range(rows)]
        return torch.stack(numbers).to(part.device, part.dtype)

    latents = torch.stack([torch.randn(shape, generator=drawn) for _ in range(rows)]).to(network.device)
    index = torch.zeros(rows, dtype=torch.int64, device=network.device)
    noise = torch.zeros_like(latents) if model.table.noise_draws > 1 else None
    guidance = None
    if guided:
        scale = torch.full((rows,), GUIDANCE_SCALE, device=network.device)
        guidance = Guidance(empty_embeddings(model, rows), scale)
    return StepInputs(latents, index, empty.map(random), noise, guidance)


def compiled_blocks(model: LoadedModel, backend: str) -> Network:
    """Return a twin of the model's network whose blocks compile when they are first run; its decoder does not."""
    network = model.network
    twin = copy.copy(network)
    twin.denoiser = copy_sharing_weights(network.denoiser)
    for block in network.family.blocks(twin.denoiser):
        block.compile(fullgraph=True, dynamic=False, backend=backend)
    return twin
