"""Several processes that train together."""

from accelerate import Accelerator, DistributedType
from torch import nn

from distill.config import DistillConfig


def check(accelerator: Accelerator, config: DistillConfig) -> None:
    """Raises ValueError for what is not trained on several processes."""
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError("sharded training (FSDP) is not supported; launch it with plain data parallelism")
    if accelerator.num_processes > 1 and config.method_ == "dmd-gan":
        raise ValueError("method: dmd-gan is trained on one process only")


def average_gradients(accelerator: Accelerator, weights: nn.Module) -> None:
    """Over all ranks, for adapters: their network is not wrapped."""
    for parameter in weights.parameters():
        if parameter.grad is not None:
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
