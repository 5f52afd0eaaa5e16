"""The protocol of a model family: everything that differs between Stable Diffusion 3, SDXL and others.

Worker and trainer know families by this class alone. A family is one file with a subclass and one line in
worker.families.registry. It has no state: pipeline, denoiser and autoencoder are passed in.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from jobs.models import PromptTokens
from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.families.prompt_embeddings import PromptEmbedding
from worker.sampling.guidance import Scale, classifier_free_guidance
from worker.sampling.noise_schedule import NoiseSchedule, Prediction

Denoiser = Callable[..., Any]
"""The denoising network, or whatever calls it, as a trainer's role does."""

Size = tuple[int, int]
"""(height, width) of an image in pixels."""


class Family(ABC):
    """One family of pipelines: how they encode prompts, denoise, decode and are checked, trained and exported.

    name: the family's name in `sampling.json` and in a training configuration.
    pipelines: diffusers' pipeline classes, as `model_index.json` names them.
    denoiser: the pipeline component that denoises.
    text_components: the pipeline components that encode prompts, tokenizers included.
    grid_field: the field of `sampling.json` that holds a grid. "sigmas" is flow matching, "timesteps" is DDPM.
    lora_targets: endings of the names of the denoiser's layers that a LoRA adapter is put on.
    unused_components: the pipeline components that are neither loaded nor looked at.
    optional_components: the pipeline components that a folder may lack; None takes their place.
    load_options: arguments for loading the pipeline.
    before_prompts: a text that stands before every prompt and counts among the tokens read.
    negative_prompt: the text that guidance leads away from where `sampling.json` names none.
    vae_memory_format: the layout in which the autoencoder convolves fastest.
    """

    name: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    denoiser: ClassVar[str]
    text_components: ClassVar[tuple[str, ...]]
    grid_field: ClassVar[Literal["sigmas", "timesteps"]]
    lora_targets: ClassVar[tuple[str, ...]]
    unused_components: ClassVar[tuple[str, ...]] = ()
    optional_components: ClassVar[tuple[str, ...]] = ()
    load_options: ClassVar[dict[str, Any]] = {}
    before_prompts: ClassVar[str] = ""
    negative_prompt: ClassVar[str] = ""
    # oneDNN and cuDNN convolve in this layout; others would be converted to it and back in every layer.
    vae_memory_format: ClassVar[torch.memory_format] = torch.channels_last

    # Prompts

    @abstractmethod
    def encode(self, pipeline: Any, prompts: Sequence[str], max_sequence_length: int | None) -> list[PromptEmbedding]:
        """Return one embedding for each prompt, in the text encoders' dtype.

        `max_sequence_length` is the number of tokens to encode, for families that leave the choice. The encoders must
        run at the same length in every call, so that an embedding does not depend on the prompts beside it.
        """

    def prompt_tokens(self, pipeline: Any, prompt: str, max_sequence_length: int | None) -> PromptTokens:
        """Count the tokens of `prompt` by the tokenizer whose text encoder reads the largest part of it."""
        counts = []
        for name in self.text_components:
            if name.startswith("tokenizer") and (tokenizer := getattr(pipeline, name)) is not None:
                total = len(tokenizer(prompt).input_ids)
                limit = self.token_limit(name, tokenizer.model_max_length, max_sequence_length)
                limit -= len(tokenizer(self.before_prompts).input_ids) if self.before_prompts else 0
                counts.append(PromptTokens(total=total, read=min(total, limit)))
        return max(counts, key=lambda count: count.read / max(1, count.total))

    def token_limit(self, tokenizer: str, model_max_length: int, max_sequence_length: int | None) -> int:
        """Return the number of tokens that the encoder behind the component `tokenizer` reads of any prompt."""
        return min(model_max_length, max_sequence_length or model_max_length)

    def default_sequence_length(self, pipeline: Any) -> int | None:
        """Return the number of tokens where nobody chooses it; None for a family that leaves no choice.

        The pipeline's text components may be None, as in training.
        """
        return None

    def told_guidance(self, pipeline: Any) -> float | None:
        """Return the guidance scale that the denoiser is told where nobody chooses it; None for one that is told none.

        It is an input of a network that was trained with it, and costs no second evaluation.
        """
        return None

    def text_lengths(self, max_sequence_length: int | None) -> tuple[int, ...]:
        """Return the lengths in tokens, rising, that embeddings of differing length are padded to in a batch: a step is
        compiled and captured for each. Empty where all embeddings have one length."""
        return ()

    def negative(self, pipeline: Any, empty: PromptEmbedding) -> PromptEmbedding:
        """Return the embedding that guidance leads away from, given that of the `empty` prompt."""
        return empty

    # Denoising

    def prepare(self, pipeline: Any) -> None:  # noqa: B027
        """Change parts of the loaded pipeline that could not be compiled or captured as they are, if there are any."""

    @abstractmethod
    def predict(
        self, network: Denoiser, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding, size: Size
    ) -> torch.Tensor:
        """Return the denoiser's prediction [B, C, h, w], in its own dtype.

        `latents` [B, C, h, w] of images of `size`, `timesteps` float32 [B], `embeddings` of B rows. It must not wait
        for the device or copy from the host, so that a CUDA graph can hold it.
        """

    def guide(self, unconditional: torch.Tensor, conditional: torch.Tensor, scale: Scale) -> torch.Tensor:
        """Combine the predictions without and with the prompt, float32 [B, C, h, w]; by default classifier-free."""
        return classifier_free_guidance(unconditional, conditional, scale)

    @abstractmethod
    def blocks(self, network: Any) -> list[nn.Module]:
        """List the repeated blocks, in which nearly all time is spent: they are compiled and sharded one by one."""

    # Latents

    def latent_shape(self, pipeline: Any, size: Size) -> tuple[int, int, int]:
        """Return (channels, latent height, latent width) of an image of `size`."""
        height, width = (side // self.scale_factor(pipeline) for side in size)
        return getattr(pipeline, self.denoiser).config.in_channels, height, width

    def scale_factor(self, pipeline: Any) -> int:
        """Return the number of pixels per latent along a side."""
        return pipeline.vae_scale_factor

    def sides(self, pipeline: Any) -> tuple[int, int | None]:
        """Return the number of pixels that each side is a multiple of, and the most that it has, None for any number.

        The pipeline's text components may be None, as in import.
        """
        return self.scale_factor(pipeline), None

    def native_size(self, pipeline: Any) -> Size:
        """Return the size that the denoiser was trained for."""
        side = getattr(pipeline, self.denoiser).config.sample_size * self.scale_factor(pipeline)
        return side, side

    def takes_pictures(self, vae: Any) -> bool:
        """Return whether `vae` can encode, as one that was published with its decoder alone cannot."""
        return getattr(vae, "encoder", None) is not None

    def encode_picture(self, vae: Any, pictures: torch.Tensor) -> torch.Tensor:
        """Encode float32 pictures [B, 3, H, W] of −1 to 1 as the float32 latents [B, C, h, w] that `decode` takes; of a
        distribution, its most probable ones."""
        config = vae.config
        encoded = vae.encode(pictures.to(vae.dtype), return_dict=False)[0]
        latents = (encoded if isinstance(encoded, torch.Tensor) else encoded.mode()).float()
        latents = latents - (config.get("shift_factor") or 0.0)
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            latents = (latents - _channels(mean, latents)) / _channels(std, latents)
        return latents * config.scaling_factor

    def decode(self, vae: Any, latents: torch.Tensor) -> torch.Tensor:
        """Decode float32 latents [B, C, h, w] to float32 images [B, 3, H, W], about −1 to 1; keeps gradients."""
        config = vae.config
        unscaled = latents / config.scaling_factor
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            unscaled = unscaled * _channels(std, latents) + _channels(mean, latents)
        unscaled = unscaled + (config.get("shift_factor") or 0.0)
        return vae.decode(unscaled.to(vae.dtype), return_dict=False)[0].float()

    # Noise levels

    @abstractmethod
    def prediction(self, pipeline: Any) -> Prediction:
        """Return the kind of prediction that the denoiser was trained for. Raises FolderRefusedError if unknown."""

    def noise_schedule(self, pipeline: Any) -> NoiseSchedule:
        """Return the noise schedule of training. Raises FolderRefusedError or ValueError as its parts do."""
        flow = self.grid_field == "sigmas"
        return NoiseSchedule(self.prediction(pipeline), None if flow else pipeline.scheduler.alphas_cumprod)

    @abstractmethod
    def own_grid(self, pipeline: Any, size: Size, steps: int) -> list[float]:
        """Return the grid of the pipeline's own scheduler: t of each of `steps` steps for images of `size`, then the
        clean one's, as the noise schedule counts t. Raises ValueError when the scheduler has none."""

    def contract_grid(self, grid: Sequence[float]) -> dict[str, list[float] | list[int]]:
        """Return `grid`, in the noise schedule's t down to the clean one, as the field of `sampling.json`."""
        return {"sigmas": list(grid)} if self.grid_field == "sigmas" else {"timesteps": [int(t) for t in grid[:-1]]}

    # Folders

    @abstractmethod
    def check(self, contract: SamplingContract, pipeline: Any) -> None:
        """Raise FolderRefusedError, beginning with the field, when the loaded pipeline cannot be served so."""

    def serving_scheduler(self, pipeline: Any) -> Any:
        """Return the scheduler that an exported folder carries."""
        return pipeline.scheduler

    # Training

    @abstractmethod
    def features(self, network: Any) -> tuple[nn.Module, int]:
        """Return a layer whose output [B, tokens, width] or [B, width, h, w] tells pictures apart, and the width."""

    @abstractmethod
    def empty_inputs(
        self, config: Any, rows: int, max_sequence_length: int | None
    ) -> tuple[torch.Tensor, PromptEmbedding]:
        """Return latents and embeddings of a training batch for a denoiser of the configuration `config`: float32,
        with the shapes of the native size and values that mean nothing."""


def refuse_other_prediction(family: Family, contract: SamplingContract) -> None:
    """Raise FolderRefusedError for another prediction than the flow."""
    if contract.prediction != "flow":
        raise FolderRefusedError(f"prediction: {family.name} predicts the flow, not {contract.prediction}")


def refuse_float16(family: Family, pipeline: Any) -> None:
    """Raise FolderRefusedError for a denoiser in float16, for networks that overflow in it."""
    if getattr(pipeline, family.denoiser).dtype == torch.float16:
        raise FolderRefusedError(f"dtype: {family.name} overflows in float16; use bfloat16 or float32")


def refuse_other_channels(family: Family, pipeline: Any) -> None:
    """Raise FolderRefusedError unless the denoiser takes the autoencoder's channels."""
    channels, latent = getattr(pipeline, family.denoiser).config.in_channels, pipeline.vae.config.latent_channels
    if channels != latent:
        raise FolderRefusedError(f"{family.denoiser}.in_channels: {channels}, but the VAE has {latent}")


def refuse_other_sides(family: Family, sizes: Sequence[Size], pipeline: Any, field: str = "sizes") -> None:
    """Raise FolderRefusedError, beginning with `field`, unless the family's `sides` allow all of `sizes`."""
    unit, largest = family.sides(pipeline)
    limit = "" if largest is None else f" and at most {largest} pixels"
    for height, width in sizes:
        if any(side % unit or (largest is not None and side > largest) for side in (height, width)):
            raise FolderRefusedError(f"{field}: {width}×{height} must be multiples of {unit}{limit}")


def refuse_other_told_guidance(contract: SamplingContract, told: bool, field: str) -> None:
    """Raise FolderRefusedError unless `contract` has a told guidance just where the denoiser is `told` one."""
    if told != (contract.told_guidance is not None):
        says = "needs it" if told else "takes none"
        raise FolderRefusedError(f"told_guidance: {contract.told_guidance}, but the denoiser {says} ({field})")


def refuse_two_guidances(contract: SamplingContract) -> None:
    """Raise FolderRefusedError for guidance by two evaluations of a denoiser that is told its scale already."""
    if contract.told_guidance is not None and contract.guidance_scale > 1:
        raise FolderRefusedError(
            f"guidance_scale: {contract.guidance_scale}, but the denoiser is told its scale by told_guidance"
        )


def _channels(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
