"""The base of all distillation methods.

Every method trains by the losses of `distill.method.dp_dmd`. It sets their hyperparameters and may add terms to the
student's loss and to the fake score's.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from distill.method.dp_dmd import Hyperparameters, Term
from worker.sampling.noise_schedule import NoiseSchedule, Predict

if TYPE_CHECKING:
    from distill.config import DistillConfig


class NoSettings(BaseModel):
    """The settings of a method that has none of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Networks:
    """The networks that a run has before its method adds modules.

    `critic` holds the fake score's trained parameters. `layer` is a layer of its network whose output [B, tokens,
    width] or [B, width, h, w] tells images apart. `decode` maps latents to float32 images [B, 3, H, W] in about
    [−1, 1] and keeps gradients. `prepare` moves a module to `device` and under the run's autocast.
    """

    critic: nn.Module
    layer: nn.Module
    width: int
    decode: Callable[[torch.Tensor], torch.Tensor]
    prepare: Callable[[nn.Module], nn.Module]
    device: torch.device


@dataclass(frozen=True)
class Batch:
    """One batch of prompts, as the terms of a method see it.

    `critic` is the fake score for these prompts. `teacher_sample` follows the guided teacher's whole ODE from noise
    float32 [B, …], without gradients. Random numbers come from `generator`, which is part of the checkpoint.
    """

    critic: Predict
    teacher_sample: Callable[[torch.Tensor], torch.Tensor]
    generator: torch.Generator


class Method:
    """One distillation method of a run. Subclasses override what differs from DP-DMD.

    name: Value of the configuration's key `method`.
    implied: Settings that the name fixes, by their keys in the configuration.
    Settings: Top-level keys that the method adds to the configuration.
    data_parallel: Whether it trains on several processes.
    hparams: Hyperparameters of the losses in this run.
    head: A module that learns with the fake score, by the same optimiser; checkpointed as "head".
    """

    name: ClassVar[str]
    implied: ClassVar[Mapping[str, Any]] = {}
    Settings: ClassVar[type[BaseModel]] = NoSettings
    data_parallel: ClassVar[bool] = True

    hparams: Hyperparameters
    head: nn.Module

    def __init__(self, config: "DistillConfig", hparams: Hyperparameters, networks: Networks) -> None:
        self.hparams = hparams
        self.head = nn.Identity()

    @classmethod
    def check(cls, config: "DistillConfig") -> None:
        """Raise ValueError for settings, sound by themselves, that contradict the method."""
        if config.critic_updates == 0:
            raise ValueError("critic_updates: distribution matching needs at least 1 for each student update")

    @classmethod
    def hyperparameters(cls, config: "DistillConfig", schedule: NoiseSchedule) -> Hyperparameters:
        """The hyperparameters that `config` sets, on the teacher's noise `schedule`."""
        return Hyperparameters(
            student_grid=config.student_grid.resolve(config.family),
            teacher_grid=config.teacher_grid.resolve(config.family),
            anchor_k=config.anchor_k,
            lambda_=config.lambda_,
            detach=config.detach,
            norm=config.norm,
            anchor_target=config.anchor_target,
            grad_step=config.grad_step,
            noise_shift=config.noise_shift,
            noise_range=config.noise_range,
            critic_noise_range=config.critic_noise_range,
            schedule=schedule,
        )

    @classmethod
    def exported_name(cls, config: "DistillConfig") -> str:
        """The name of the method in the `sampling.json` of an exported student."""
        return cls.name

    def critic_terms(self, batch: Batch) -> dict[str, Term]:
        """Terms that join the fake score's loss, functions of the student's samples float32 [B, …]."""
        return {}

    def student_terms(self, batch: Batch, noise: torch.Tensor) -> dict[str, Term]:
        """Terms that join the student's loss, functions of its samples from `noise` float32 [B, …].

        They must leave no gradients in other modules that are trained: see `frozen`.
        """
        return {}


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Keep gradients out of `modules`, which are trained otherwise, in graphs recorded within the context."""
    for module in modules:
        module.requires_grad_(False)
    try:
        yield
    finally:
        for module in modules:
            module.requires_grad_(True)
