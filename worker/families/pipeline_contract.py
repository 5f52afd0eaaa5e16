"""Whether a loaded pipeline fits its sampling contract, and the contract of one that has none."""

from typing import Any

import torch
from diffusers import FlowMatchLCMScheduler, LCMScheduler
from pydantic import ValidationError

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.families.stable_diffusion_3 import StableDiffusion3
from worker.families.stable_diffusion_xl import StableDiffusionXL
from worker.sampling import step_table as sampler
from worker.sampling.step_table import StepTable

Network = StableDiffusion3 | StableDiffusionXL

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
"""A scheduler's prediction_type → a contract's prediction."""
MAX_T5_LENGTH = 512


def own_contract(pipeline: Any, steps: int, guidance_scale: float = 1.0) -> SamplingContract:
    """What a pipeline without sampling.json is served on: its scheduler's grid of `steps`, its native size.

    Raises FolderRefused for a scheduler whose grid cannot be served.
    """
    scheduler = pipeline.scheduler
    try:
        scheduler.set_timesteps(steps)
        own = _own_sdxl(pipeline) if is_sdxl(pipeline) else _own_sd3(pipeline)
        renoise = isinstance(scheduler, LCMScheduler | FlowMatchLCMScheduler)
        return SamplingContract(
            method="none",
            steps=steps,
            sampler="re-noise" if renoise else "ode",
            guidance_scale=guidance_scale,
            **own,
        )
    except ValidationError as error:
        faults = "; ".join(part["msg"] for part in error.errors())
        raise FolderRefusedError(f"scheduler: the {steps} steps of {type(scheduler).__name__}: {faults}") from error
    except ValueError as error:
        raise FolderRefusedError(f"scheduler: {error}") from error


def check(contract: SamplingContract, pipeline: Any) -> StepTable:
    """The sampler's table for a pipeline that fits `contract`. Raises FolderRefused, naming what does not."""
    (_check_sdxl if is_sdxl(pipeline) else _check_sd3)(contract, pipeline)
    try:
        return sampler.from_contract(contract, alphas_cumprod(pipeline))
    except ValueError as error:
        raise FolderRefusedError(str(error)) from error


def network(contract: SamplingContract, pipeline: Any) -> Network:
    """The pipeline's networks as the engine calls them."""
    if is_sdxl(pipeline):
        return StableDiffusionXL(pipeline)
    return StableDiffusion3(pipeline, contract.max_sequence_length or default_sequence_length(pipeline))


def is_sdxl(pipeline: Any) -> bool:
    return hasattr(pipeline, "unet")


def denoiser(pipeline: Any) -> Any:
    return pipeline.unet if is_sdxl(pipeline) else pipeline.transformer


def alphas_cumprod(pipeline: Any) -> torch.Tensor | None:
    """ᾱ of every training timestep, if the scheduler has any."""
    return getattr(pipeline.scheduler, "alphas_cumprod", None)


def default_sequence_length(pipeline: Any) -> int:
    """diffusers' default of 256 tokens, or fewer when the T5 tokenizer was made for fewer."""
    return min(256, pipeline.tokenizer_3.model_max_length) if pipeline.tokenizer_3 else 256


def _own_sd3(pipeline: Any) -> dict[str, Any]:
    return {
        "family": "sd3",
        "prediction": "flow",
        "sigmas": pipeline.scheduler.sigmas.tolist(),
        "max_sequence_length": default_sequence_length(pipeline),
        "sizes": [_native_size(pipeline)],
    }


def _own_sdxl(pipeline: Any) -> dict[str, Any]:
    return {
        "family": "sdxl",
        "prediction": _predicts(pipeline),
        "timesteps": [round(timestep) for timestep in pipeline.scheduler.timesteps.tolist()],
        "sizes": [_native_size(pipeline)],
    }


def _native_size(pipeline: Any) -> tuple[int, int]:
    side = denoiser(pipeline).config.sample_size * pipeline.vae_scale_factor
    return side, side


def _predicts(pipeline: Any) -> str:
    """What the UNet was trained to give, as its scheduler says. Raises FolderRefused for neither ε nor v."""
    kind = pipeline.scheduler.config.get("prediction_type")
    if alphas_cumprod(pipeline) is None or kind not in PREDICTIONS:
        name = type(pipeline.scheduler).__name__
        raise FolderRefusedError(f"scheduler: {name} with prediction_type {kind}; served are epsilon and v_prediction")
    return PREDICTIONS[kind]


def _check_sd3(contract: SamplingContract, pipeline: Any) -> None:
    config = pipeline.transformer.config
    if contract.prediction != "flow":
        raise FolderRefusedError(f"prediction: Stable Diffusion 3 predicts the flow, not {contract.prediction}")
    _check_channels("transformer", pipeline)
    if contract.max_sequence_length and contract.max_sequence_length > MAX_T5_LENGTH:
        raise FolderRefusedError(f"max_sequence_length: {contract.max_sequence_length} is above {MAX_T5_LENGTH}")
    unit = pipeline.vae_scale_factor * config.patch_size
    largest = unit * config.pos_embed_max_size
    for size in contract.sizes:
        if any(side % unit or side > largest for side in size):
            raise FolderRefusedError(f"sizes: {size} must be multiples of {unit} and at most {largest} pixels")


def _check_sdxl(contract: SamplingContract, pipeline: Any) -> None:
    config, text_2 = pipeline.unet.config, pipeline.text_encoder_2.config
    if contract.prediction != _predicts(pipeline):
        raise FolderRefusedError(
            f"prediction: {contract.prediction}, but the scheduler's prediction_type is"
            f" {pipeline.scheduler.config.prediction_type}"
        )
    _check_channels("unet", pipeline)
    if config.time_cond_proj_dim is not None:
        raise FolderRefusedError("unet.time_cond_proj_dim: a UNet that is told its guidance scale is not served")
    if config.addition_embed_type != "text_time":
        raise FolderRefusedError(f"unet.addition_embed_type: {config.addition_embed_type}, but SDXL's is text_time")
    told = 6 * config.addition_time_embed_dim + text_2.projection_dim
    if config.projection_class_embeddings_input_dim != told:
        raise FolderRefusedError(
            f"unet.projection_class_embeddings_input_dim: {config.projection_class_embeddings_input_dim},"
            f" but six sizes and the pooled prompt make {told}"
        )
    width = pipeline.text_encoder.config.hidden_size + text_2.hidden_size
    if config.cross_attention_dim != width:
        raise FolderRefusedError(
            f"unet.cross_attention_dim: {config.cross_attention_dim}, but the text encoders make {width}"
        )
    length = pipeline.tokenizer.model_max_length
    if contract.max_sequence_length not in (None, length):
        raise FolderRefusedError(f"max_sequence_length: {contract.max_sequence_length}, but CLIP's is {length}")
    unit = pipeline.vae_scale_factor
    for size in contract.sizes:
        if any(side % unit for side in size):
            raise FolderRefusedError(f"sizes: {size} must be multiples of {unit}")


def _check_channels(name: str, pipeline: Any) -> None:
    channels, latent = denoiser(pipeline).config.in_channels, pipeline.vae.config.latent_channels
    if channels != latent:
        raise FolderRefusedError(f"{name}.in_channels: {channels}, but the VAE has {latent}")
