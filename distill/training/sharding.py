"""Networks whose weights are split over processes (FSDP2: torch's fully_shard), and their states as if whole."""

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
    """Whether `accelerate launch` was told to shard. Raises ValueError for the sharding of before, FSDP1."""
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ValueError(f"fsdp_version: {version} is not supported; set it to 2 in accelerate's configuration")
    return True


def shard(network: nn.Module, blocks: Iterable[nn.Module], device: torch.device, precision: str) -> None:
    """Split `network` over all processes; each of its `blocks` is gathered when it is asked and let go afterwards.

    Its float32 weights, gradients and sums of gradients stay float32; with `precision` "bf16" it is gathered in
    bfloat16. The states that pass through keep their type.
    """
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    gathered = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for part in (*blocks, network):
        # The outermost, too: gathered weights that stayed would be old ones after the weights are exchanged.
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def is_sharded(network: nn.Module) -> bool:
    return isinstance(network, FSDPModule)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor gathered; all processes must ask for it. Any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def load_module(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """`load_state_dict` of whole tensors, each process keeping its shards."""
    own = module.state_dict()
    module.load_state_dict({name: _as(value, own.get(name)) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict` of whole tensors, each process keeping its shards."""
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                kept[name] = _as(value, parameter)


def _as(value: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
