"""The common part of Stable Diffusion 1, 2 and XL: a UNet over DDPM's alphas."""

from typing import Any

import torch
from torch import nn

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.sampling.noise_schedule import Prediction

CLIP_TOKENS = 77
PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}
"""A scheduler's prediction_type → the noise schedule's prediction."""


def prediction(pipeline: Any) -> Prediction:
    """Return the prediction that the scheduler names. Raises FolderRefusedError for one without DDPM's alphas."""
    scheduler = pipeline.scheduler
    kind = scheduler.config.get("prediction_type")
    if getattr(scheduler, "alphas_cumprod", None) is None or kind not in PREDICTIONS:
        raise FolderRefusedError(
            f"scheduler: {type(scheduler).__name__} with prediction_type {kind}; served are {', '.join(PREDICTIONS)}"
        )
    return PREDICTIONS[kind]


def own_grid(pipeline: Any, steps: int) -> list[float]:
    """Return the scheduler's timesteps, then −1. Raises ValueError for timesteps between those of training."""
    pipeline.scheduler.set_timesteps(steps)
    timesteps = pipeline.scheduler.timesteps.tolist()
    if any(t != round(t) for t in timesteps):
        raise ValueError(
            f"{type(pipeline.scheduler).__name__} goes to timesteps {timesteps}, which are none of training"
        )
    return [*map(round, timesteps), -1]


def transformer_blocks(network: Any) -> list[nn.Module]:
    """List the attention blocks, in which nearly all time is spent."""
    return [part for part in network.modules() if type(part).__name__ == "BasicTransformerBlock"]


def guidance_condition(scale: torch.Tensor | None, width: int | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return the embedding [B, `width`] of the guidance `scale` [B] that a latent consistency model is told, or None.

    It is that of latent consistency models (arXiv 2310.04378): sines, then cosines of 1000·(scale − 1).
    """
    if scale is None or width is None:
        return None
    half = width // 2
    exponents = torch.arange(half, device=scale.device, dtype=torch.float32) / (half - 1)
    angles = 1000 * (scale.float() - 1)[:, None] * 10_000**-exponents
    embedding = torch.cat([angles.sin(), angles.cos()], 1).to(dtype)
    return nn.functional.pad(embedding, (0, width % 2))


def refuse_other_unet(contract: SamplingContract, pipeline: Any) -> None:
    """Raise FolderRefusedError unless prediction and prompt length of `contract` are the pipeline's.

    A network that gives the clean image is made from one that does not: its base's scheduler cannot say so.
    """
    if contract.prediction not in ("sample", prediction(pipeline)):
        raise FolderRefusedError(
            f"prediction: {contract.prediction}, but the scheduler's prediction_type is"
            f" {pipeline.scheduler.config.prediction_type}"
        )
    length = pipeline.tokenizer.model_max_length
    if contract.max_sequence_length not in (None, length):
        raise FolderRefusedError(f"max_sequence_length: {contract.max_sequence_length}, but CLIP's is {length}")


def refuse_other_width(pipeline: Any, width: int) -> None:
    """Raise FolderRefusedError unless the UNet reads prompts of `width` values a token."""
    reads = pipeline.unet.config.cross_attention_dim
    if reads != width:
        raise FolderRefusedError(f"unet.cross_attention_dim: {reads}, but the text encoders make {width}")
