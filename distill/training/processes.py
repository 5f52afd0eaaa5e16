"""Training on several processes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import distributed, nn

from distill.config import DistillConfig
from distill.method.registry import METHODS
from distill.training import sharding
from distill.training.roles import Role

WAIT = timedelta(hours=2)
"""How long a process waits for the others in a collective; NCCL's own 10 minutes are too few on a slow file system."""


def accelerator(config: DistillConfig) -> Accelerator:
    """Join the processes of this run. Raises ValueError as `check` does."""
    joined = Accelerator(
        mixed_precision=config.precision,
        # A broadcast in every forward pass would overwrite buffers that earlier steps of the rollout still need.
        # The others wait while the first writes a checkpoint, tens of gigabytes for a large model.
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=WAIT),
        ],
    )
    check(joined, config)
    return joined


def check(accelerator: Accelerator, config: DistillConfig) -> None:
    """Raise ValueError when `config` cannot be trained on these processes."""
    if accelerator.num_processes > 1 and not METHODS[config.method].data_parallel:
        raise ValueError(f"method: {config.method} is trained on one process only")
    if not sharding.wanted():
        return
    if not distributed.is_initialized():
        raise ValueError("sharded training (FSDP2) needs several processes; launch it with num_processes above 1")
    if config.lora_rank:
        raise ValueError("lora_rank: adapters are not trained sharded (FSDP2); launch with plain data parallelism")


def prepared(
    accelerator: Accelerator,
    config: DistillConfig,
    parts: Sequence[Role],
    average: nn.Module,
    blocks: Callable[[Any], Sequence[nn.Module]],
) -> list[Role]:
    """Put the networks of teacher, student and fake score, `parts`, on the device and under autocast.

    They are sharded, or wrapped for data parallelism where each role has a network of its own. `average`, the average
    of the student's weights, is treated as they are.
    """
    shared, sharded = config.lora_rank is not None, sharding.wanted()
    average.to(accelerator.device)
    networks: dict[nn.Module, nn.Module] = {}
    for part in parts:
        if part.network not in networks:
            if sharded:
                sharding.shard(part.network, blocks(part.network), accelerator.device, config.precision)
            frozen = shared or sharded or part is parts[0]
            networks[part.network] = accelerator.prepare_model(part.network, evaluation_mode=frozen)
    if sharded:
        sharding.shard(average, blocks(average), accelerator.device, config.precision)
    return [replace(part, network=networks[part.network]) for part in parts]


def average_gradients(accelerator: Accelerator, weights: nn.Module) -> None:
    """Average the gradients of `weights` over all ranks. Adapters need it: their network is not wrapped."""
    for parameter in weights.parameters():
        if parameter.grad is not None:
            parameter.grad = accelerator.reduce(parameter.grad, "mean")


def mean(accelerator: Accelerator, metrics: dict[str, float]) -> dict[str, float]:
    """The mean of every metric over all ranks; every rank must call it."""
    if accelerator.num_processes == 1:
        return metrics
    values = torch.tensor(list(metrics.values()), dtype=torch.float32, device=accelerator.device)
    return dict(zip(metrics, accelerator.reduce(values, "mean").tolist(), strict=True))
