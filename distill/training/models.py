"""The models of a run, on the device and ready to train."""

from collections.abc import Sequence
from typing import cast

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import nn
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill.config import DistillConfig
from distill.training import processes, roles
from distill.training.roles import Role
from worker.families.base import Family


def build(
    network: nn.Module, family: Family, config: DistillConfig, accelerator: Accelerator
) -> tuple[Role, Role, Role, AveragedModel]:
    """Make teacher, student, fake score and the student's average of the teacher's denoiser `network`."""
    rank = config.lora_rank
    parts = roles.adapters(network, rank, family.lora_targets) if rank else roles.copies(network)
    average = AveragedModel(parts[1].weights, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
    average.requires_grad_(False)
    roles.freeze(parts, config.precision)
    if config.compile:
        _require_compiler(accelerator.device)
        _compile_blocks([block for role in parts for block in family.blocks(role.network)])
    if config.gradient_checkpointing:
        for role in parts[1:]:
            cast(ModelMixin, role.network).enable_gradient_checkpointing()
    teacher, student, critic = processes.prepared(accelerator, config, parts, average.module, family.blocks)
    return teacher, student, critic, average


def _require_compiler(device: torch.device) -> None:
    """Raise ValueError where torch.compile would fail for want of a C++ compiler: here, before any work."""
    if device.type == "cpu":
        try:
            cpp_builder.get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise ValueError("compile: there is no C++ compiler here; install g++, or set compile to false") from error


def _compile_blocks(blocks: Sequence[nn.Module]) -> None:
    """Compile every block in place."""
    # All blocks share one code object, and so one limit, beyond which they would run eager: each block is compiled
    # with and without gradients.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * len(blocks))
    for block in blocks:
        # Not the whole call, which has the hooks that gather a sharded block.
        block.forward = torch.compile(block.forward, fullgraph=True)
