"""Sharding of weights over processes (FSDP2, torch's fully_shard), and whole state dicts of sharded networks."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def wanted() -> bool:
    """Return whether `accelerate launch` is configured to shard. Raises ValueError for FSDP1."""
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ValueError(f"fsdp_version: {version} is not supported; set it to 2 in accelerate's configuration")
    return True


def shard(network: nn.Module, blocks: Iterable[nn.Module], device: torch.device, precision: str) -> None:
    """Shard `network` over all processes. Each of its `blocks` is gathered for its forward pass and freed afterwards.

    Weights, gradients and their reductions are float32; with `precision` "bf16" weights are gathered in bfloat16.
    Inputs keep their dtype.
    """
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    gathered = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for part in (*blocks, network):
        # Free the outermost weights, too: gathered ones would be stale after the role's weights are swapped.
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def is_sharded(network: nn.Module) -> bool:
    return isinstance(network, FSDPModule)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a sharded tensor, which every process must do; any other tensor is returned as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def load_module(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a state dict of whole tensors; each process keeps its shards."""
    own = module.state_dict()
    module.load_state_dict({name: _as(value, own.get(name)) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state dict of whole tensors; each process keeps its shards."""
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                kept[name] = _as(value, parameter)


def _as(value: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
