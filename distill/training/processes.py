"""Several processes that train together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import distributed, nn

from distill.config import DistillConfig
from distill.method.registry import METHODS
from distill.training import sharding
from distill.training.roles import Role


def check(accelerator: Accelerator, config: DistillConfig) -> None:
    """Raises ValueError for what is not trained on several processes."""
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
    """Teacher, student and critic with their networks on the device and under autocast: sharded, or, where each has
    its own, under data parallelism. `average` follows the student's weights."""
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
    """Over all ranks, for adapters: their network is not wrapped."""
    for parameter in weights.parameters():
        if parameter.grad is not None:
            parameter.grad = accelerator.reduce(parameter.grad, "mean")


def mean(accelerator: Accelerator, metrics: dict[str, float]) -> dict[str, float]:
    """Of every metric over all ranks, which must all ask."""
    if accelerator.num_processes == 1:
        return metrics
    values = torch.tensor(list(metrics.values()), dtype=torch.float32, device=accelerator.device)
    return dict(zip(metrics, accelerator.reduce(values, "mean").tolist(), strict=True))
