"""One denoising step as a function of tensors alone, so that it can be captured and compiled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch

from worker.families.prompt_embeddings import PromptEmbedding, concatenated
from worker.sampling import step_table as sampler
from worker.sampling.guidance import Guide, classifier_free_guidance
from worker.sampling.step_table import StepTable


class Predict(Protocol):
    """Predicts [B, C, h, w] from latents fp32 [B, C, h, w], timesteps fp32 [B] and embeddings of B rows."""

    def __call__(self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding) -> torch.Tensor: ...


@dataclass(frozen=True)
class Guidance:
    """The guidance of B rows: embeddings that it leads away from, and `scale` fp32 [B]."""

    negative: PromptEmbedding
    scale: torch.Tensor


@dataclass(frozen=True)
class StepInputs:
    """A batch on one device: `latents` fp32 [B, C, h, w], and `index` int64 [B], the step that each row takes.

    `embeddings` holds B rows; `noise` is like `latents`, or None for a deterministic sampler. Under `guidance` every
    row is evaluated twice.
    """

    latents: torch.Tensor
    index: torch.Tensor
    embeddings: PromptEmbedding
    noise: torch.Tensor | None = None
    guidance: Guidance | None = None

    @property
    def named_tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that are there; the latents are the first."""
        named = {"latents": self.latents, "index": self.index, **self.embeddings.parts}
        if self.noise is not None:
            named["noise"] = self.noise
        if self.guidance is not None:
            named |= {f"negative {name}": part for name, part in self.guidance.negative.parts.items()}
            named["scale"] = self.guidance.scale
        return named

    def map(self, function: Callable[[str, torch.Tensor], torch.Tensor]) -> "StepInputs":
        """Apply `function` to the name of each tensor and itself."""
        made = {name: function(name, tensor) for name, tensor in self.named_tensors.items()}
        guidance = None
        if self.guidance is not None:
            names = self.guidance.negative.parts
            negative = PromptEmbedding(**{name: made[f"negative {name}"] for name in names})
            guidance = Guidance(negative, made["scale"])
        embeddings = PromptEmbedding(**{name: made[name] for name in self.embeddings.parts})
        return StepInputs(made["latents"], made["index"], embeddings, made.get("noise"), guidance)

    def rows(self, which: slice) -> "StepInputs":
        """Return a batch of `which` rows."""
        return self.map(lambda name, tensor: tensor[which])


@dataclass(frozen=True)
class StepOutputs:
    """The `latents` for the next step and `pred_x0`, the predicted clean latents: fp32 [B, C, h, w] each."""

    latents: torch.Tensor
    pred_x0: torch.Tensor


@dataclass(frozen=True)
class DenoisingStep:
    """Coefficients, guidance and network in one call that never waits for the device.

    Under guidance every row is evaluated twice, and `guide` combines both predictions. `size_tables`
    holds the tables of latents (height, width) whose coefficients are not those of `table`.
    """

    predict: Predict
    table: StepTable
    guide: Guide = classifier_free_guidance
    size_tables: Mapping[tuple[int, int], StepTable] = field(default_factory=dict)

    def __call__(self, inputs: StepInputs) -> StepOutputs:
        predict = self.predictor(inputs.embeddings, inputs.guidance)
        height, width = inputs.latents.shape[-2:]
        table = self.size_tables.get((height, width), self.table)
        return StepOutputs(*sampler.step(table, predict, inputs.latents, inputs.index, inputs.noise))

    def predictor(self, embeddings: PromptEmbedding, guidance: Guidance | None = None) -> sampler.Predict:
        """Return the prediction for `embeddings` of B rows."""
        if guidance is None:
            return partial(self.predict, embeddings=embeddings)
        both = concatenated(guidance.negative, embeddings)
        return sampler.guided(partial(self.predict, embeddings=both), guidance.scale.view(-1, 1, 1, 1), self.guide)
