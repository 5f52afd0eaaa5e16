"""The networks of a loaded pipeline as functions of tensors, eager or compiled."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from jobs.models import PromptTokens
from worker.device import accelerator
from worker.device.fast_gelu import use_fast_gelu
from worker.device.shared_weights import copy_sharing_weights
from worker.families.base import Family
from worker.families.prompt_embeddings import PromptEmbedding
from worker.sampling.guidance import Scale


class Network:
    """Text encoders, denoiser and decoder of a pipeline of `family`; holds no state of a request."""

    def __init__(
        self,
        family: Family,
        pipeline: Any,
        max_sequence_length: int | None = None,
        told_guidance: float | None = None,
        negative_prompt: str = "",
    ) -> None:
        """`max_sequence_length` in tokens, by default the family's own. `told_guidance` is the scale that every row
        tells the denoiser, if any; guidance by two evaluations leads away from `negative_prompt`."""
        family.prepare(pipeline)
        self.family = family
        self.pipeline = pipeline
        self.denoiser: Any = getattr(pipeline, family.denoiser)
        self.vae: Any = pipeline.vae.to(memory_format=family.vae_memory_format)
        self.device: torch.device = self.denoiser.device
        self.dtype: torch.dtype = self.denoiser.dtype
        self._max_sequence_length = max_sequence_length or family.default_sequence_length(pipeline)
        self.text_lengths = family.text_lengths(self._max_sequence_length)
        self._told_guidance = (
            None if told_guidance is None else torch.tensor(told_guidance, dtype=torch.float32, device=self.device)
        )
        self.negative_prompt = negative_prompt
        self._scale_factor = family.scale_factor(pipeline)
        self.seal: Callable[[], object] = lambda: None
        """Compile or convert no more shapes of this twin; those that it has not seen run eagerly from then on."""

    @property
    def asynchronous(self) -> bool:
        """True where the networks run beside the host, so that it is free until `wait`."""
        return accelerator.has_accelerator(self.device)

    @property
    def idle(self) -> bool:
        """True where the device has done all that this thread gave it."""
        return accelerator.is_idle(self.device)

    def wait(self) -> None:
        """Wait until the device has done what it was given. Raises torch.AcceleratorError if it failed."""
        accelerator.wait_for(self.device)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (channels, latent height, latent width) of an image of `height` × `width` pixels."""
        return self.family.latent_shape(self.pipeline, (height, width))

    def encode(self, prompts: Sequence[str]) -> list[PromptEmbedding]:
        """Return one embedding for each prompt on the device, in the denoiser's dtype; a told guidance in float32."""
        encoded = self.family.encode(self.pipeline, prompts, self._max_sequence_length)
        # Cloned, so that a kept embedding does not keep its whole batch.
        encoded = [each.to(device=self.device, dtype=self.dtype).map(torch.clone) for each in encoded]
        if self._told_guidance is None:
            return encoded
        # In float32: rounded, the scale would change its embedding by much more than the embedding's own rounding.
        return [replace(each, guidance=self._told_guidance) for each in encoded]

    def prompt_tokens(self, prompt: str) -> PromptTokens:
        """Count the tokens of `prompt`, and those that are read."""
        return self.family.prompt_tokens(self.pipeline, prompt, self._max_sequence_length)

    def negative(self, embedding: PromptEmbedding) -> PromptEmbedding:
        """Return the embedding that guidance leads away from, given that of the negative prompt."""
        return embedding if self.negative_prompt else self.family.negative(self.pipeline, embedding)

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding) -> torch.Tensor:
        """Return the prediction [B, C, h, w], in the denoiser's dtype.

        `latents` float32 [B, C, h, w], `timesteps` float32 [B], `embeddings` of B rows.
        """
        height, width = latents.shape[-2:]
        size = height * self._scale_factor, width * self._scale_factor
        return self.family.predict(self.denoiser, latents.to(self.dtype), timesteps, embeddings, size)

    def guide(self, unconditional: torch.Tensor, conditional: torch.Tensor, scale: Scale) -> torch.Tensor:
        """Combine the predictions without and with the prompt, fp32 [B, C, h, w], as the family does."""
        return self.family.guide(unconditional, conditional, scale)

    @property
    def takes_pictures(self) -> bool:
        """True where the autoencoder can encode."""
        return self.family.takes_pictures(self.vae)

    def encode_picture(self, pictures: torch.Tensor) -> torch.Tensor:
        """Encode float32 pictures [B, 3, H, W] of −1 to 1 as float32 latents [B, C, h, w]."""
        return self.family.encode_picture(self.vae, pictures)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode float32 latents [B, C, h, w] to float32 images [B, 3, H, W], about −1 to 1."""
        return self.family.decode(self.vae, latents)

    def compiled(self) -> "Network":
        """Return a twin on the same weights, whose blocks and decoder compile when first run at a shape."""
        twin = copy.copy(self)
        twin.denoiser, twin.vae = copy_sharing_weights(self.denoiser), copy_sharing_weights(self.vae)
        if self.device.type == "cpu":
            use_fast_gelu(twin.denoiser)
        # One by one: the blocks are alike, so that the first one's code serves them all.
        for part in (*self.family.blocks(twin.denoiser), twin.vae.decoder):
            part.compile(fullgraph=True, dynamic=False)
        twin.seal = partial(torch.compiler.set_stance, "eager_on_recompile")
        return twin

    def converted(self) -> "Network":
        """Return a twin whose text encoders, denoiser and decoder OpenVINO runs, converted when first run at a shape.

        One row or many are the same shape. Raises ModuleNotFoundError where OpenVINO is not installed."""
        from worker.device.openvino_runtime import OpenVINORuntime

        runtime, twin = OpenVINORuntime(self.dtype, torch.get_num_threads()), copy.copy(self)
        twin.denoiser, twin.pipeline = copy_sharing_weights(self.denoiser), copy.copy(self.pipeline)
        # Not shared: it reads weights of bfloat16 in no other layout.
        twin.vae = copy.deepcopy(self.vae).to(memory_format=torch.contiguous_format)
        for name in self.family.text_components:
            if isinstance(encoder := getattr(self.pipeline, name), torch.nn.Module):
                setattr(twin.pipeline, name, copy_sharing_weights(encoder))
                runtime.take_over(getattr(twin.pipeline, name))
        runtime.take_over(twin.denoiser)
        runtime.take_over(twin.vae.decoder)
        twin.seal = runtime.seal
        return twin
