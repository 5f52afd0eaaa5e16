"""Teacher, student and fake score: three networks, or one frozen network with two LoRA adapters."""

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn

ROLES = ("student", "critic")


@dataclass(frozen=True)
class Role:
    """A network, and `weights`, a module that holds the role's trained parameters and no others.

    `adapter` names the role's LoRA adapter in a shared network; "" disables all adapters.
    """

    network: nn.Module
    weights: nn.Module
    adapter: str | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.activate()
        return self.network(*arguments, **named)

    def activate(self) -> None:
        """Enable this role's adapter in a shared network.

        Call it before a backward pass, too: gradient checkpointing runs the network again there.
        """
        if self.adapter is None:
            return
        for layer in self.network.modules():
            if isinstance(layer, LoraLayer):
                # Not by peft's set_adapter, which takes requires_grad, and so the gradients that are still to come,
                # from every other adapter.
                layer._disable_adapters = not self.adapter
                layer._active_adapter = [self.adapter] if self.adapter else []

    @contextmanager
    def holding(self, weights: nn.Module) -> Iterator[None]:
        """Swap the role's parameters with those of `weights`, a module like `self.weights`, for the duration."""
        self._exchange(weights)
        try:
            yield
        finally:
            self._exchange(weights)

    @torch.no_grad()
    def _exchange(self, weights: nn.Module) -> None:
        # In place: a sharded network keeps hold of its memory.
        for mine, other in zip(self.weights.parameters(), weights.parameters(), strict=True):
            kept = mine.clone()
            mine.copy_(other)
            other.copy_(kept)


def copies(teacher: nn.Module) -> tuple[Role, Role, Role]:
    """Make teacher, student and fake score ("critic") three networks."""
    student, critic = (copy.deepcopy(teacher).requires_grad_(True) for _ in range(2))
    return tuple(Role(network, network) for network in (teacher.requires_grad_(False), student, critic))  # type: ignore[return-value]


def adapters(teacher: Any, rank: int, targets: Sequence[str]) -> tuple[Role, Role, Role]:
    """Make teacher, student and fake score ("critic") one network: the teacher is the network with its adapters off.

    Adapters are added to the layers whose names end with one of `targets`. A new adapter changes nothing, so that
    student and critic start as the teacher.
    """
    teacher.requires_grad_(False)
    # Each adapter that peft adds takes requires_grad from those before it.
    student, critic = (part.requires_grad_(True) for part in [attach(teacher, name, rank, targets) for name in ROLES])
    return Role(teacher, nn.Module(), ""), Role(teacher, student, "student"), Role(teacher, critic, "critic")


def freeze(parts: Iterable[Role], precision: str) -> None:
    """Keep weights that no role trains in bfloat16 when `precision` is "bf16": autocast would cast them anyway."""
    if precision != "bf16":
        return
    for part in parts:
        for parameter in part.network.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()


def attach(network: Any, name: str, rank: int, targets: Sequence[str]) -> nn.Module:
    """Add a LoRA adapter to `network`; returns its float32 parameters, [rank, in] and [out, rank] for each layer."""
    endings = tuple(f".{target}" for target in targets)
    # By their full names: peft would also take a list of layers for one that ends with `to_out`, and refuse it.
    layers = [path for path, layer in network.named_modules() if path.endswith(endings) and hasattr(layer, "weight")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # a second adapter is meant
        network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), adapter_name=name)
    return nn.ParameterList(parameter for path, parameter in network.named_parameters() if f".{name}." in path)


def lora_state(network: Any, weights: nn.Module, targets: Sequence[str]) -> dict[str, torch.Tensor]:
    """Add the student's adapter, with the values of `weights`, to `network`; returns it by diffusers' names."""
    own = attach(network, "student", next(weights.parameters()).shape[0], targets)
    for value, parameter in zip(weights.parameters(), own.parameters(), strict=True):
        parameter.data.copy_(value)
    return get_peft_model_state_dict(network, adapter_name="student")


def merge(network: Any, weights: nn.Module, targets: Sequence[str]) -> None:
    """Add the student's adapter, with the values of `weights`, to the network's own weights."""
    lora_state(network, weights, targets)
    network.fuse_lora(adapter_names=["student"])
    network.unload_lora()
