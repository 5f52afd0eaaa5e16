"""The settings of one distillation run, read from a YAML file and checked before any work."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distill.dp_dmd import Method
from distill.flow import shifted_grid
from distill.losses import Normaliser

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Grid(BaseModel):
    """Noise levels: either `sigmas` as they are, or evenly spaced ones shifted to noise, ending at `last`, then 0."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sigmas: tuple[float, ...] | None = None
    steps: Count | None = None
    shift: Positive = 1.0
    last: Positive | None = None

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        if (self.sigmas is None) == (self.steps is None):
            raise ValueError("give exactly one of sigmas and steps")
        sigmas = self.resolve()
        if sigmas[0] != 1.0 or sigmas[-1] != 0.0:
            raise ValueError(f"a grid must run from 1 to 0, not from {sigmas[0]} to {sigmas[-1]}")
        if any(after >= now for now, after in pairwise(sigmas)):
            raise ValueError("a grid must fall strictly")
        return self

    def resolve(self) -> tuple[float, ...]:
        """The noise levels, from 1.0 down to 0.0."""
        return self.sigmas or shifted_grid(self.steps or 1, self.shift, self.last)


class DistillConfig(BaseModel):
    """One DP-DMD run. `steps` counts student updates; each is preceded by `critic_updates` critic updates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: Path
    prompts: Path
    steps: Count
    batch: Count = 16
    seed: int = 0
    student_grid: Grid
    teacher_grid: Grid = Grid(steps=30, shift=3.0)
    guidance_scale: Annotated[float, Field(ge=1)] = 3.5
    negative_prompt: str = ""
    max_sequence_length: Count = 256
    anchor_k: Count = 5
    lambda_: Annotated[float, Field(ge=0, alias="lambda")] = 0.05
    detach: bool = True
    norm: Normaliser = "xt"
    noise_shift: Positive = 3.0
    critic_updates: Count = 5
    student_learning_rate: Positive = 1e-5
    critic_learning_rate: Positive = 1e-5
    max_grad_norm: Positive = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    precision: Literal["no", "bf16"] = "bf16"
    compile: bool = True
    save_every: Count = 50
    log_every: Count = 5

    @model_validator(mode="after")
    def _grids_fit(self) -> Self:
        if len(self.student_grid.resolve()) < 3:
            raise ValueError("student_grid: needs at least 2 steps, the first for diversity and the others for quality")
        teacher_steps = len(self.teacher_grid.resolve()) - 1
        if self.anchor_k > teacher_steps:
            raise ValueError(f"anchor_k: {self.anchor_k} is more than the teacher's {teacher_steps} steps")
        return self

    def method(self) -> Method:
        return Method(
            student_sigmas=self.student_grid.resolve(),
            teacher_sigmas=self.teacher_grid.resolve(),
            anchor_k=self.anchor_k,
            lambda_=self.lambda_,
            detach=self.detach,
            norm=self.norm,
            noise_shift=self.noise_shift,
        )


def load(path: Path) -> DistillConfig:
    """Read a YAML file. Raises pydantic.ValidationError, which names every wrong field, or OSError."""
    return DistillConfig.model_validate(yaml.safe_load(path.read_text()) or {})


def read_prompts(path: Path) -> list[str]:
    """The prompt file: one prompt a line, blank lines left out. Raises ValueError when none is left."""
    prompts = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"prompts: {path} holds no prompt; write one a line")
    return prompts
