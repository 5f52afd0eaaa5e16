"""DP-DMD, and the methods that are DP-DMD with other hyperparameters."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from distill.method.base import Method
from distill.method.dp_dmd import Hyperparameters
from worker.sampling.noise_schedule import NoiseSchedule

if TYPE_CHECKING:
    from distill.config import DistillConfig


class DpDmd(Method):
    """Diversity in the first step, distribution matching in the later ones (Eq. 8)."""

    name = "dp-dmd"

    @classmethod
    def exported_name(cls, config: "DistillConfig") -> str:
        """The variant that λ and detach, set by hand, make of it."""
        if config.lambda_ == 0:
            return "dmd-detached" if config.detach else Dmd.name
        return cls.name if config.detach else DpDmdNoDetach.name


class DpDmdNoDetach(Method):
    """DP-DMD whose first step learns by distribution matching, too."""

    name = "dp-dmd-nodetach"
    implied: ClassVar[Mapping[str, Any]] = {"detach": False}

    @classmethod
    def check(cls, config: "DistillConfig") -> None:
        super().check(config)
        if config.grad_step == "last":
            raise ValueError("grad_step: with last, the first step gets no gradient that a detach could cut")


class Dmd(Method):
    """Distribution matching alone, λ = 0."""

    name = "dmd"
    implied: ClassVar[Mapping[str, Any]] = {"lambda": 0.0, "detach": False}


class Step1Regression(Method):
    """The diversity loss of the first step alone."""

    name = "step1-regression"
    implied: ClassVar[Mapping[str, Any]] = {"critic_updates": 0, "critic_warmup": 0}

    @classmethod
    def check(cls, config: "DistillConfig") -> None:
        if config.lambda_ == 0:
            raise ValueError("lambda: step1-regression has no other loss, so it must be above 0")

    @classmethod
    def hyperparameters(cls, config: "DistillConfig", schedule: NoiseSchedule) -> Hyperparameters:
        return replace(super().hyperparameters(config, schedule), distribution_matching=False)
