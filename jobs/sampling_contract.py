"""``sampling.json``: the timesteps or sigmas that a distilled model was trained for, the only ones it is served on."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FILE_NAME = "sampling.json"

Pixels = Annotated[int, Field(gt=0)]
ExamplePrompt = Annotated[str, Field(min_length=1, max_length=200)]


class Teacher(BaseModel):
    """The model that was distilled."""

    model_config = ConfigDict(extra="forbid")

    id: str
    sha256: str | None = None


class SamplingContract(BaseModel):
    """The sampling parameters of a servable folder.

    Either ``sigmas`` (noise levels from at most 1 down to 0.0, one more than ``steps``) or ``timesteps`` (training
    timesteps, strictly falling, one per step) is the grid. ``sizes`` are (height, width) in pixels, the native one
    first; ``size_sigmas`` has a grid of its own for each of them, where the levels depend on the size.

    ``sampler`` says how a step leads to the next level: along the ODE (Euler, DDIM), by adding fresh noise to pred_x0
    (LCM, multistep consistency), by both (Euler ancestral), or through the level below that ``gamma`` names (TCD).
    ``start`` is the scale of the starting noise: 1, or the first level's σ. ``end`` is where the ODE ends: at the clean
    image, or at the schedule's first level. All other steps end at the next timestep, or at their entry in
    ``step_ends``.

    ``guidance_scale`` is that of two evaluations a step, one of them with ``negative_prompt``; ``told_guidance`` is an
    input of a network that was trained with it.

    ``base`` is set for a folder that holds a LoRA file or some components of a pipeline: the hub id of the model that
    has the rest, or that model's path relative to the folder. ``base_sha256`` is then the hash of that model's weights,
    otherwise of the folder's own. ``parts`` names what the folder holds, by default the LoRA file, which is added at
    ``lora_scale``.

    ``examples`` are prompts that the model draws well; the playground offers them, and begins with the first.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    method: str
    family: str
    prediction: Literal["flow", "epsilon", "v", "sample"]
    steps: int = Field(gt=0)
    sigmas: list[float] | None = None
    size_sigmas: list[list[float]] | None = None
    timesteps: list[int] | None = None
    step_ends: list[int] | None = None
    sampler: Literal["ode", "re-noise", "ancestral", "tcd"] = "ode"
    gamma: float | None = Field(default=None, ge=0.0, le=1.0)
    start: Literal["unit", "level"] = "unit"
    end: Literal["clean", "first"] = "clean"
    guidance_scale: float = Field(default=1.0, ge=1.0)
    told_guidance: float | None = Field(default=None, ge=0.0)
    negative_prompt: str = ""
    max_sequence_length: int | None = Field(default=None, gt=0)
    sizes: list[tuple[Pixels, Pixels]] = Field(min_length=1)
    anchor_k: int | None = None
    lambda_: float | None = Field(default=None, alias="lambda")
    teacher: Teacher | None = None
    base: str | None = None
    base_sha256: str | None = None
    parts: list[str] | None = None
    lora_scale: float = 1.0
    metrics: dict[str, Any] = {}
    examples: list[ExamplePrompt] = Field(default=[], max_length=24)

    @model_validator(mode="after")
    def _grid_is_sound(self) -> Self:
        if (self.sigmas is None) == (self.timesteps is None):
            raise ValueError("give exactly one of sigmas and timesteps")
        if self.sigmas is not None:
            self._check_sigmas(self.sigmas)
        if self.timesteps is not None:
            self._check_timesteps(self.timesteps)
        if self.size_sigmas is not None:
            if self.sigmas is None or len(self.size_sigmas) != len(self.sizes):
                raise ValueError("size_sigmas must hold one list beside sigmas for each of sizes")
            for sigmas in self.size_sigmas:
                self._check_sigmas(sigmas)
        return self

    @model_validator(mode="after")
    def _sampler_is_sound(self) -> Self:
        if (self.gamma is None) == (self.sampler == "tcd"):
            raise ValueError("gamma belongs to the sampler tcd, and to no other")
        if self.end == "first" and self.sampler != "ode":
            raise ValueError(f"end: the sampler {self.sampler} has an end of its own")
        if self.timesteps is None:
            if self.sampler in ("ancestral", "tcd"):
                raise ValueError(f"sampler: {self.sampler} needs timesteps")
            if self.start != "unit" or self.end != "clean" or self.step_ends is not None:
                raise ValueError("start, end and step_ends belong to timesteps; sigmas say where they start and end")
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
        if self.step_ends is not None and len(self.step_ends) != self.steps - 1:
            raise ValueError(f"step_ends must hold steps − 1 = {self.steps - 1} values, not {len(self.step_ends)}")
        if any(not 0 <= end < start for start, end in zip(timesteps, self.step_ends or [], strict=False)):
            raise ValueError("step_ends must lie below their timesteps and not below 0")

    def sigmas_of(self, size: tuple[int, int]) -> list[float] | None:
        """Return the noise levels for images of ``size``, one of ``sizes``; None where the grid is of timesteps."""
        if self.size_sigmas is None:
            return self.sigmas
        return self.size_sigmas[self.sizes.index(size)]

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
