"""The memory that a run's roles and its student turn take, by shapes alone: no weight is read or made."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from distill import teacher_pipeline
from distill.config import DistillConfig
from distill.training import roles
from distill.training.roles import Role
from worker.families.base import Family

NO_SIZE = (1, 1)
"""The (height, width) of an image whose content does not matter."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one process. All of it is there at once when the student's backward pass begins to have gradients."""

    weights: int
    average: int
    optimizers: int
    gradients: int
    activations: int
    buckets: int = 0
    """Bytes of plain data parallelism's gradient buckets of student and critic; 0 for one process and for FSDP2."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Disk:
    """Bytes on disk: `embeddings` of one prompt, one `checkpoint` of which two are kept, one kept `student`."""

    embeddings: int
    checkpoint: int
    student: int


def of_run(
    config: DistillConfig, architecture: Path | None = None, processes: int = 1, sharded: bool = False
) -> Memory:
    """The memory that `config` needs on each of `processes` for the denoiser in `architecture`, a pipeline folder of
    which only `model_index.json` and the denoiser's `config.json` are read (default: the teacher's).

    `sharded` by FSDP2, or else copied (data parallelism). Autoencoder, prompt embeddings and what a single layer needs
    for a moment are not counted, nor is what FSDP2 gathers of a block at a time.
    """
    family, parts = _roles(config, architecture)
    _, student, critic = parts
    learners = [_bytes(role.weights.parameters()) for role in (student, critic)]
    networks = {id(role.network): role.network for role in parts}.values()
    weights, average = (_split(modules, processes if sharded else 1) for modules in (networks, [student.weights]))
    share = processes if sharded else 1
    return Memory(
        weights=weights,
        average=average,
        optimizers=2 * sum(learners) // share,
        gradients=max(learners) // share,
        activations=_activations(config, family, student),
        buckets=sum(learners) if processes > 1 and not sharded and not config.lora_rank else 0,
    )


def on_disk(config: DistillConfig, architecture: Path | None = None) -> Disk:
    """The bytes on disk of a run of `config`; for `architecture` see `of_run`."""
    family, parts = _roles(config, architecture)
    _, student, critic = parts
    average = _split([student.weights], 1)
    learnt = sum(_bytes((*role.weights.parameters(), *role.weights.buffers())) for role in (student, critic))
    sums = 2 * sum(_bytes(role.weights.parameters()) for role in (student, critic))
    with torch.device("meta"):
        network: Any = student.network
        _, embeddings = family.empty_inputs(network.config, 1, config.max_sequence_length)
    of_prompt = sum(part.numel() * torch.bfloat16.itemsize for part in embeddings.parts.values())
    return Disk(of_prompt, learnt + sums + average, average)


def _split(modules: Iterable[nn.Module], processes: int) -> int:
    """Bytes on each of `processes`: parameters are split, buffers are not."""
    each = list(modules)
    parameters = sum(_bytes(module.parameters()) for module in each)
    return parameters // processes + sum(_bytes(module.buffers()) for module in each)


def _roles(config: DistillConfig, architecture: Path | None) -> tuple[Family, tuple[Role, Role, Role]]:
    """The family, and teacher, student and critic without memory."""
    folder = architecture or config.teacher
    family = teacher_pipeline.family(folder)
    about = json.loads((folder / family.denoiser / "config.json").read_text())
    with torch.device("meta"):
        network: Any = getattr(diffusers, about["_class_name"]).from_config(about)
        rank, targets = config.lora_rank, family.lora_targets
        parts = roles.adapters(network, rank, targets) if rank else roles.copies(network)
    roles.freeze(parts, config.precision)
    return family, parts


def _activations(config: DistillConfig, family: Family, student: Role) -> int:
    """Count the bytes that the evaluations of a rollout keep for their backward pass.

    With gradient checkpointing, the one block that is being repeated counts too.
    """
    network: Any = student.network
    with FakeTensorMode():
        # Tensors with shapes and types of the CPU's, but no memory: unlike those of "meta", autocast minds them.
        for module in network.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    faked = torch.empty(parameter.shape, dtype=parameter.dtype)
                    module._parameters[name] = nn.Parameter(faked, parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        kept = _Kept((*network.parameters(), *network.buffers()))
        if config.gradient_checkpointing:
            network.enable_gradient_checkpointing(kept.repeated)
        latents, embeddings = family.empty_inputs(network.config, config.batch, config.max_sequence_length)
        student.activate()
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")
        with autocast, torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
            family.predict(network, latents, torch.empty(config.batch), embeddings, NO_SIZE)
    evaluations = len(config.student_grid.resolve(config.family)) - 1 if config.grad_step == "all" else 2
    return evaluations * kept.bytes + kept.largest


class _Kept:
    """Counts the bytes that are kept for a backward pass: each memory once, and none of `known`."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        self.bytes = 0
        self.largest = 0
        # Storages themselves, not their numbers alone: a freed one's number is given to another.
        self._seen = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in known}

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage
            self.bytes += storage.nbytes()
        return tensor

    def repeated(self, block: Any, *arguments: Any) -> Any:
        """Keep only the arguments of a block that the backward pass runs again; diffusers calls this in its place."""
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                self.add(argument)
        inside = _Kept(())
        inside._seen = dict(self._seen)
        with torch.autograd.graph.saved_tensors_hooks(inside.add, lambda tensor: tensor):
            prediction = block(*arguments)
        self.largest = max(self.largest, inside.bytes)
        return prediction


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
