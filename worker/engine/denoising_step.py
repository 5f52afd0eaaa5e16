"""One denoising step as a function of tensors alone, so that it can be captured and compiled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch

from worker.families.prompt_embeddings import PromptEmbedding, concatenated, repeated
from worker.sampling import step_table as sampler
from worker.sampling.guidance import Guide, classifier_free_guidance
from worker.sampling.step_table import StepTable


class Predict(Protocol):
    """Predicts [B, C, h, w] from latents fp32 [B, C, h, w], timesteps fp32 [B] and embeddings of B rows."""

    def __call__(self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding) -> torch.Tensor: ...


@dataclass(frozen=True)
class StepInputs:
    """A batch on one device: `latents` fp32 [B, C, h, w], and `index` int64 [B], the step that each row takes.

    `embeddings` holds B rows; `noise` is like `latents`, or None for a deterministic sampler.
    """

    latents: torch.Tensor
    index: torch.Tensor
    embeddings: PromptEmbedding
    noise: torch.Tensor | None = None

    @property
    def tensors(self) -> list[torch.Tensor]:
        always = [self.latents, self.index, *self.embeddings.parts.values()]
        return always if self.noise is None else [*always, self.noise]

    def rows(self, which: slice) -> "StepInputs":
        """Return a batch of `which` rows."""
        noise = None if self.noise is None else self.noise[which]
        return StepInputs(self.latents[which], self.index[which], self.embeddings.map(lambda part: part[which]), noise)


@dataclass(frozen=True)
class StepOutputs:
    """The `latents` for the next step and `pred_x0`, the predicted clean latents: fp32 [B, C, h, w] each."""

    latents: torch.Tensor
    pred_x0: torch.Tensor


@dataclass(frozen=True)
class DenoisingStep:
    """Coefficients, guidance and network in one call that never waits for the device.

    With a `negative` embedding, of one row, every row is evaluated twice, and `guide` combines both predictions.
    `size_tables` holds the tables of latents (height, width) whose coefficients are not those of `table`.
    """

    predict: Predict
    table: StepTable
    guidance_scale: float
    negative: PromptEmbedding | None
    guide: Guide = classifier_free_guidance
    size_tables: Mapping[tuple[int, int], StepTable] = field(default_factory=dict)

    def __call__(self, inputs: StepInputs) -> StepOutputs:
        predict = self.predictor(inputs.embeddings)
        height, width = inputs.latents.shape[-2:]
        table = self.size_tables.get((height, width), self.table)
        return StepOutputs(*sampler.step(table, predict, inputs.latents, inputs.index, inputs.noise))

    def predictor(self, embeddings: PromptEmbedding) -> sampler.Predict:
        """Return the prediction for `embeddings` of B rows, guided where there is a negative embedding."""
        if self.negative is None:
            return partial(self.predict, embeddings=embeddings)
        both = concatenated(repeated(self.negative, len(embeddings.tokens)), embeddings)
        return sampler.guided(partial(self.predict, embeddings=both), self.guidance_scale, self.guide)
