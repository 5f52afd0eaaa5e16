"""``sampling.json``: the timesteps or sigmas that a distilled model was trained for, the only ones it is served on."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FILE_NAME = "sampling.json"

Pixels = Annotated[int, Field(gt=0)]


class Teacher(BaseModel):
    """The model that was distilled."""

    model_config = ConfigDict(extra="forbid")

    id: str
    sha256: str | None = None


class SamplingContract(BaseModel):
    """The sampling parameters of a servable folder.

    Either ``sigmas`` (noise levels from at most 1 down to 0.0, one more than ``steps``) or ``timesteps`` (training
    timesteps, strictly falling, one per step) is the grid. ``sampler`` says how a step leads to the next level: along
    the ODE (Euler, DDIM), or by adding fresh noise to pred_x0 (LCM, multistep consistency). ``sizes`` are (height,
    width) in pixels, the native one first.

    ``base`` is set for a LoRA file: the hub id of the model that the file is made for, or that model's path relative
    to the folder. ``base_sha256`` is then the hash of that model's weights, otherwise of the folder's own.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    method: str
    family: str
    prediction: Literal["flow", "epsilon", "v"]
    steps: int = Field(gt=0)
    sigmas: list[float] | None = None
    timesteps: list[int] | None = None
    sampler: Literal["ode", "re-noise"] = "ode"
    guidance_scale: float = Field(default=1.0, ge=1.0)
    max_sequence_length: int | None = Field(default=None, gt=0)
    sizes: list[tuple[Pixels, Pixels]] = Field(min_length=1)
    anchor_k: int | None = None
    lambda_: float | None = Field(default=None, alias="lambda")
    teacher: Teacher | None = None
    base: str | None = None
    base_sha256: str | None = None
    metrics: dict[str, Any] = {}

    @model_validator(mode="after")
    def _grid_is_sound(self) -> Self:
        if (self.sigmas is None) == (self.timesteps is None):
            raise ValueError("give exactly one of sigmas and timesteps")
        if self.sigmas is not None:
            self._check_sigmas(self.sigmas)
        if self.timesteps is not None:
            self._check_timesteps(self.timesteps)
        return self

    def _check_sigmas(self, sigmas: list[float]) -> None:
        if len(sigmas) != self.steps + 1:
            raise ValueError(f"sigmas must hold steps + 1 = {self.steps + 1} values, not {len(sigmas)}")
        if sigmas[0] > 1.0 or sigmas[-1] != 0.0:
            raise ValueError(f"sigmas must run from at most 1 to 0.0, not from {sigmas[0]} to {sigmas[-1]}")
        if any(later >= earlier for earlier, later in pairwise(sigmas)):
            raise ValueError("sigmas must fall strictly")

    def _check_timesteps(self, timesteps: list[int]) -> None:
        if len(timesteps) != self.steps:
            raise ValueError(f"timesteps must hold steps = {self.steps} values, not {len(timesteps)}")
        if timesteps[-1] < 0 or any(later >= earlier for earlier, later in pairwise(timesteps)):
            raise ValueError("timesteps must fall strictly and not below 0")

    @property
    def evaluations(self) -> int:
        """Network evaluations (NFE) per image: one a step, or two with guidance (with and without the prompt)."""
        return self.steps * (2 if self.guidance_scale > 1 else 1)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``folder/sampling.json``; FileNotFoundError when absent, pydantic.ValidationError when invalid."""
        return cls.model_validate_json((folder / FILE_NAME).read_bytes())

    def save(self, folder: Path) -> None:
        """Write ``folder/sampling.json`` without the fields that are None."""
        text = self.model_dump_json(by_alias=True, exclude_none=True, indent=2)
        (folder / FILE_NAME).write_text(text + "\n")
