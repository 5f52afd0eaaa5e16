"""The settings of one distillation run, read from a YAML file and checked before any work."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from distill.method.adversary import GanLoss
from distill.method.dp_dmd import AnchorTarget, GradStep, Method
from distill.method.losses import Normaliser
from worker.device.bfloat16 import has_native_bfloat16
from worker.families import registry
from worker.sampling.noise_schedule import FLOW, NoiseSchedule, shifted_grid, trailing_grid

MethodName = Literal["dp-dmd", "dp-dmd-nodetach", "dmd", "dmd-perceptual", "dmd-gan", "step1-regression"]
PLAIN_DMD: dict[str, Any] = {"lambda": 0.0, "detach": False}
IMPLIED: dict[str, dict[str, Any]] = {
    "dp-dmd": {},
    "dp-dmd-nodetach": {"detach": False},
    "dmd": PLAIN_DMD,
    "dmd-perceptual": PLAIN_DMD,
    "dmd-gan": PLAIN_DMD,
    "step1-regression": {"critic_updates": 0, "critic_warmup": 0},
}
"""What a method's name settles about the other settings."""

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def _of_this_machine(precision: Any) -> Any:
    """`auto` is bf16 where it is no emulation. It is settled when a run begins, so that it goes on in the same one."""
    if precision != "auto":
        return precision
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if has_native_bfloat16(device) else "no"


class Grid(BaseModel):
    """The levels that a sampler visits. Flow matching (sd3): either `sigmas` as they are, or `steps` evenly spaced ones
    shifted to noise, ending at `last`, then 0. DDPM (sdxl): `timesteps` as they are, or `steps` evenly spaced ones from
    the noisiest."""

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
        """Every level in the family's t, down to the clean one. Raises ValueError for what is no grid of the family."""
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


class Perceptual(BaseModel):
    """Of dmd-perceptual: `network` is "package.module:factory", see `distill.method.perceptual.feature_network`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    weight: Positive = 1.0


class Gan(BaseModel):
    """Of dmd-gan: the weights of its loss in the student's turn and in the critic's, and of R1 in the latter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: GanLoss = "softplus"
    student_weight: Positive = 5e-3
    critic_weight: Positive = 1e-2
    r1: NotNegative = 0.0
    r1_noise: Positive = 0.01


class DistillConfig(BaseModel):
    """One run. `steps` counts student updates; each is preceded by `critic_updates` critic updates.

    An update takes `accumulate` batches of `batch` samples on each process. With `lora_rank`, student and critic are
    LoRA adapters on the teacher; without, networks of their own. `embeddings` is a folder of encoded prompts that
    runs may share; without, the run keeps its own. Of a cycle's critic updates `critic_rollouts` draw samples of the
    student, by default each; the others take the last ones again, with fresh noise and noise levels. With 0 they take
    those that the student's own update made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: Path
    prompts: Path
    embeddings: Path | None = None
    steps: Count
    family: Annotated[str, AfterValidator(lambda name: registry.named(name).name)] = "sd3"
    method_: Annotated[MethodName, Field(alias="method")] = "dp-dmd"
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
    perceptual: Perceptual | None = None
    gan: Gan | None = None
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

    @model_validator(mode="before")
    @classmethod
    def _settled_by_method(cls, values: dict[str, Any]) -> dict[str, Any]:
        implied = IMPLIED.get(values.get("method", "dp-dmd"), {})
        for name, value in implied.items():
            if values.get(name, value) != value:
                raise ValueError(f"{name}: {values[name]} does not go with method {values['method']}; leave it out")
        return values | implied

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(_resolve("student_grid", self.student_grid, self.family)) < 3:
            raise ValueError("student_grid: needs at least 2 steps, the first for diversity and the others for quality")
        teacher_steps = len(_resolve("teacher_grid", self.teacher_grid, self.family)) - 1
        if self.anchor_k > teacher_steps:
            raise ValueError(f"anchor_k: {self.anchor_k} is more than the teacher's {teacher_steps} steps")
        if self.noise_range[0] >= self.noise_range[1]:
            raise ValueError(f"noise_range: must rise, not go from {self.noise_range[0]} to {self.noise_range[1]}")
        if self.method_ != "step1-regression" and self.critic_updates == 0:
            raise ValueError("critic_updates: distribution matching needs at least 1 for each student update")
        if self.rollouts > self.critic_updates:
            raise ValueError(f"critic_rollouts: {self.rollouts} is more than the {self.critic_updates} critic_updates")
        if self.method_ == "step1-regression" and self.lambda_ == 0:
            raise ValueError("lambda: step1-regression has no other loss, so it must be above 0")
        if (self.perceptual is None) == (self.method_ == "dmd-perceptual"):
            raise ValueError("perceptual: method dmd-perceptual needs it, and no other takes it")
        if self.gan is not None and self.method_ != "dmd-gan":
            raise ValueError("gan: is for method dmd-gan alone")
        if self.lora_rank is not None and self.compile:
            raise ValueError("compile: adapters that take turns cannot be compiled; set it to false with lora_rank")
        if self.lora_rank is not None and self.gradient_checkpointing and self.method_ == "dmd-gan":
            raise ValueError(
                "gradient_checkpointing: dmd-gan differentiates two adapters at once, one alone is repeated"
            )
        if self.method_ == "dp-dmd-nodetach" and self.grad_step == "last":
            raise ValueError("grad_step: with last, the first step gets no gradient that a detach could cut")
        return self

    def method(self, schedule: NoiseSchedule = FLOW) -> Method:
        """Its losses, on the teacher's noise `schedule`."""
        return Method(
            student_grid=self.student_grid.resolve(self.family),
            teacher_grid=self.teacher_grid.resolve(self.family),
            anchor_k=self.anchor_k,
            lambda_=self.lambda_,
            detach=self.detach,
            distribution_matching=self.method_ != "step1-regression",
            norm=self.norm,
            anchor_target=self.anchor_target,
            grad_step=self.grad_step,
            noise_shift=self.noise_shift,
            noise_range=self.noise_range,
            schedule=schedule,
        )

    @property
    def rollouts(self) -> int:
        """How often the critic turns of a cycle draw samples."""
        return self.critic_updates if self.critic_rollouts is None else self.critic_rollouts

    @property
    def method_name(self) -> str:
        """What an exported folder says it was made by: λ and detach given by hand count, too."""
        if self.method_ != "dp-dmd":
            return self.method_
        if self.lambda_ == 0:
            return "dmd"
        return "dp-dmd" if self.detach else "dp-dmd-nodetach"


def _resolve(name: str, grid: Grid, family: str) -> tuple[float, ...]:
    try:
        return grid.resolve(family)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def load(path: Path) -> DistillConfig:
    """Read a YAML file. Raises pydantic.ValidationError, which names every wrong field, or OSError."""
    return DistillConfig.model_validate(yaml.safe_load(path.read_text()) or {})


def read_prompts(path: Path) -> list[str]:
    """The prompt file: one prompt a line, blank lines left out. Raises ValueError when none is left."""
    prompts = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"prompts: {path} holds no prompt; write one a line")
    return prompts
