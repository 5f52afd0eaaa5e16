"""The settings of one distillation run, read from a YAML file and checked before any work."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from distill.method.base import Method
from distill.method.dp_dmd import AnchorTarget, GradStep, Hyperparameters
from distill.method.losses import Normaliser
from distill.method.registry import METHODS, owners_of_settings
from worker.device.bfloat16 import has_native_bfloat16
from worker.families import registry
from worker.sampling.noise_schedule import FLOW, NoiseSchedule, shifted_grid, trailing_grid

LEAST_NOISE_LEFT = 0.05
"""The share of the noise level that a student's first step must leave to those that learn quality."""

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def _of_this_machine(precision: Any) -> Any:
    """Resolve `auto`: bf16 where the device computes in it natively. A run resumes in the precision it started with."""
    if precision != "auto":
        return precision
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if has_native_bfloat16(device) else "no"


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"{name!r} is none of {', '.join(METHODS)}")
    return name


class Grid(BaseModel):
    """The noise levels that a sampler visits.

    sd3: `sigmas` as they are, or `steps` evenly spaced ones, shifted by `shift`, from 1 down to `last` and then 0.
    sdxl: `timesteps` as they are, or `steps` evenly spaced ones, starting at the noisiest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sigmas: tuple[float, ...] | None = None
    timesteps: tuple[int, ...] | None = None
    steps: Count | None = None
    shift: Positive = 1.0
    last: Positive | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.sigmas, self.timesteps, self.steps)) != 1:
            raise ValueError("give exactly one of sigmas, timesteps and steps")
        return self

    def resolve(self, family: str = "sd3") -> tuple[float, ...]:
        """All levels in the family's t, down to the clean one. Raises ValueError when it is no grid of the family."""
        grid = self._flow() if registry.named(family).grid_field == "sigmas" else self._ddpm()
        if any(after >= now for now, after in pairwise(grid)):
            raise ValueError("a grid must fall strictly")
        return grid

    def _flow(self) -> tuple[float, ...]:
        if self.timesteps is not None:
            raise ValueError("timesteps are for DDPM families; those of flow matching have sigmas")
        sigmas = self.sigmas or shifted_grid(self.steps or 1, self.shift, self.last)
        if sigmas[0] != 1.0 or sigmas[-1] != 0.0:
            raise ValueError(f"a grid must run from 1 to 0, not from {sigmas[0]} to {sigmas[-1]}")
        return sigmas

    def _ddpm(self) -> tuple[float, ...]:
        if self.sigmas is not None or self.shift != 1.0 or self.last is not None:
            raise ValueError("sigmas, shift and last are for flow matching; DDPM families have timesteps or steps")
        if self.timesteps is None:
            return trailing_grid(self.steps or 1)
        if self.timesteps[0] != 999 or self.timesteps[-1] < 0:
            raise ValueError("timesteps must start at 999, pure noise, and not go below 0")
        return (*map(float, self.timesteps), -1.0)


class DistillConfig(BaseModel):
    """The configuration of one run.

    `steps` counts student updates. Each follows `critic_updates` updates of the fake score ("critic"). An update takes
    `accumulate` batches of `batch` samples on each process. With `lora_rank`, student and critic are LoRA adapters on
    the teacher; without, networks of their own. `embeddings` is a folder of encoded prompts that runs may share;
    without, the run keeps its own.

    `critic_rollouts` of a cycle's critic updates draw samples of the student, by default all of them. The others reuse
    the last samples with fresh noise and noise levels. With 0, all reuse the samples of the student's own update.

    `keep_students` averaged students, the best so far, are kept beside the checkpoints.

    The first `warm_start_updates` regress the student's first step on its anchor, and end early when `anchor_r2` is
    `warm_start_r2`. With `lambda_ratio`, `lambda` is where λ begins; it is moved to hold λ·|gradient of the diversity
    loss| / |that of distribution matching| there. The critic learns at noise levels of `critic_noise_range`, by default
    those of `noise_range`; the first `first_noise_updates` match distributions in `first_noise_range`.

    Other keys are the settings of one method, such as `gan`: see `distill.method.base.Method.Settings`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    teacher: Path
    prompts: Path
    embeddings: Path | None = None
    steps: Count
    family: Annotated[str, AfterValidator(lambda name: registry.named(name).name)] = "sd3"
    method: Annotated[str, AfterValidator(_known_method)] = "dp-dmd"
    batch: Count = 16
    accumulate: Count = 1
    seed: int = 0
    student_grid: Grid
    teacher_grid: Grid = Grid(steps=30, shift=3.0)
    guidance_scale: Annotated[float, Field(ge=1)] = 3.5
    negative_prompt: str = ""
    max_sequence_length: Count = 256
    anchor_k: Count = 5
    anchor_target: AnchorTarget = "average_velocity"
    lambda_: Annotated[NotNegative, Field(alias="lambda")] = 0.05
    detach: bool = True
    grad_step: GradStep = "all"
    norm: Normaliser = "xt"
    noise_shift: Positive = 3.0
    noise_range: tuple[Fraction, Fraction] = (0.001, 0.999)
    lora_rank: Count | None = None
    gradient_checkpointing: bool = False
    critic_updates: Annotated[int, Field(ge=0)] = 5
    critic_warmup: Annotated[int, Field(ge=0)] = 0
    critic_rollouts: Annotated[int, Field(ge=0)] | None = None
    student_learning_rate: Positive = 1e-5
    critic_learning_rate: Positive = 1e-5
    max_grad_norm: Positive = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    precision: Annotated[Literal["no", "bf16"], BeforeValidator(_of_this_machine)] = "bf16"
    compile: bool = True
    save_every: Count = 50
    log_every: Count = 5
    keep_students: Count = 1
    warm_start_updates: Annotated[int, Field(ge=0)] = 0
    warm_start_r2: Fraction = 0.4
    lambda_ratio: Positive | None = None
    critic_noise_range: tuple[Fraction, Fraction] | None = None
    first_noise_range: tuple[Fraction, Fraction] | None = None
    first_noise_updates: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _settled_by_method(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Add the settings that the method's name fixes, and check those that only this method has."""
        method = METHODS.get(values.get("method", "dp-dmd"))
        if method is None:
            return values  # refused by the field's own check
        for name, value in method.implied.items():
            if values.get(name, value) != value:
                raise ValueError(f"{name}: {values[name]} does not go with method {values['method']}; leave it out")
        fields = {field.alias or name for name, field in cls.model_fields.items()}
        others = {key: value for key, value in values.items() if key not in fields}
        return {**values, **method.implied, **_own_settings(method, others)}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        student_grid = _resolve("student_grid", self.student_grid, self.family)
        if len(student_grid) < 3:
            raise ValueError("student_grid: needs at least 2 steps, the first for diversity and the others for quality")
        if (left := student_grid[1] / student_grid[0]) < LEAST_NOISE_LEFT:
            raise ValueError(
                f"student_grid: the second step starts at {student_grid[1]:.4g}, with {left:.1%} of the noise left;"
                f" at least {LEAST_NOISE_LEFT:.0%} must be, or the later steps change nothing"
            )
        teacher_steps = len(_resolve("teacher_grid", self.teacher_grid, self.family)) - 1
        if self.anchor_k > teacher_steps:
            raise ValueError(f"anchor_k: {self.anchor_k} is more than the teacher's {teacher_steps} steps")
        for name in ("noise_range", "critic_noise_range", "first_noise_range"):
            if (ends := getattr(self, name)) and ends[0] >= ends[1]:
                raise ValueError(f"{name}: must rise, not go from {ends[0]} to {ends[1]}")
        if bool(self.first_noise_updates) != bool(self.first_noise_range):
            raise ValueError("first_noise_range: goes with first_noise_updates; set both or neither")
        for name in ("warm_start_updates", "lambda_ratio"):
            if getattr(self, name) and (self.lambda_ == 0 or self.critic_updates == 0):
                raise ValueError(f"{name}: needs both losses, of diversity (lambda above 0) and of matching")
        if self.rollouts > self.critic_updates:
            raise ValueError(f"critic_rollouts: {self.rollouts} is more than the {self.critic_updates} critic_updates")
        if self.lora_rank is not None and self.compile:
            raise ValueError("compile: adapters that take turns cannot be compiled; set it to false with lora_rank")
        METHODS[self.method].check(self)
        return self

    def hyperparameters(self, schedule: NoiseSchedule = FLOW) -> Hyperparameters:
        """The hyperparameters of the method's losses, on the teacher's noise `schedule`."""
        return METHODS[self.method].hyperparameters(self, schedule)

    def section(self, key: str) -> Any:
        """The method's own settings under `key`, a model; None where they are left out."""
        return (self.model_extra or {}).get(key)

    @property
    def is_balanced(self) -> bool:
        """Return whether the losses are balanced anew as the run goes on."""
        return bool(self.warm_start_updates or self.lambda_ratio or self.first_noise_updates)

    @property
    def rollouts(self) -> int:
        """The number of critic updates in a cycle that draw samples."""
        return self.critic_updates if self.critic_rollouts is None else self.critic_rollouts

    @property
    def method_name(self) -> str:
        """The method's name in an exported folder; λ and detach set by hand count, too."""
        return METHODS[self.method].exported_name(self)


def _own_settings(method: type[Method], keys: dict[str, Any]) -> dict[str, Any]:
    """Check `keys`, which must be settings of `method`; returns them, and None for those of other methods."""
    owners = owners_of_settings()
    given = {key: value for key, value in keys.items() if value is not None or key not in owners}
    for key in given:
        if key in owners and key not in method.Settings.model_fields:
            raise ValueError(f"{key}: is for method {owners[key]} alone")
    return dict.fromkeys(owners) | dict(method.Settings.model_validate(given))


def _resolve(name: str, grid: Grid, family: str) -> tuple[float, ...]:
    try:
        return grid.resolve(family)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def load(path: Path) -> DistillConfig:
    """Read a YAML file. Raises pydantic.ValidationError, which names the wrong fields, or OSError."""
    return DistillConfig.model_validate(yaml.safe_load(path.read_text()) or {})


def read_prompts(path: Path) -> list[str]:
    """Read a prompt file: one prompt a line; blank lines are skipped. Raises ValueError when there is none."""
    prompts = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"prompts: {path} holds no prompt; write one a line")
    return prompts
