"""Conditional and guided predictions of a denoiser as functions of state and noise level."""

from collections.abc import Callable
from typing import Any

import torch

from worker.families.base import Family, Size
from worker.families.prompt_embeddings import PromptEmbedding
from worker.families.registry import STABLE_DIFFUSION_3
from worker.sampling.guidance import Guide, classifier_free_guidance
from worker.sampling.noise_schedule import FLOW, NoiseSchedule, Predict


def conditional(
    model: Callable[..., Any],
    embeddings: PromptEmbedding,
    *,
    size: Size,
    family: Family = STABLE_DIFFUSION_3,
    schedule: NoiseSchedule = FLOW,
) -> Predict:
    """The model's prediction for `embeddings` of B rows and images of `size`, unguided."""

    def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return family.predict(model, state, schedule.timestep(t), embeddings, size).float()

    return predict


def guided(positive: Predict, negative: Predict, scale: float, guide: Guide = classifier_free_guidance) -> Predict:
    """The prediction that `guide` makes of both.

    The two evaluations run one after the other, for a lower memory peak.
    """

    def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        without = negative(state, t)
        return guide(without, positive(state, t), scale)

    return predict
