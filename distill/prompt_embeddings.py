"""Encode prompts once each, so that no text encoder is in memory or at work while training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from worker.families import registry
from worker.families.prompt_embeddings import PromptEmbedding, stacked


@dataclass(frozen=True)
class PromptEmbeddings:
    """Embeddings of `prompts`: `index` int64 [prompts] points into the rows of `unique`, a batch in bfloat16 with one
    row for each distinct prompt."""

    prompts: tuple[str, ...]
    index: torch.Tensor
    unique: PromptEmbedding

    def rows(self, numbers: torch.Tensor) -> PromptEmbedding:
        """Return the batch of the prompts numbered `numbers`, int64 [B], in float32."""
        unique = self.index[numbers]
        return self.unique.map(lambda part: part[unique]).to(dtype=torch.float32)

    def of(self, prompt: str) -> PromptEmbedding:
        """Return one prompt's embedding as a batch of 1. Raises KeyError for a prompt that is not among `prompts`."""
        if prompt not in self.prompts:
            raise KeyError(f"prompt {prompt!r} is not in the embedding cache")
        return self.rows(torch.tensor([self.prompts.index(prompt)]))


@torch.no_grad()
def encode(pipeline: Any, prompts: Sequence[str], max_sequence_length: int, batch: int = 64) -> PromptEmbeddings:
    """Encode every distinct prompt once with the pipeline's own text encoders.

    `pipeline` is of a known family; prompts may not contain line breaks (ValueError). Nothing is logged of prompts that
    the text encoders cut off.
    """
    if any("\n" in prompt for prompt in prompts):
        raise ValueError("a prompt contains a line break; write one prompt per line")
    family = registry.of(pipeline)
    unique = list(dict.fromkeys(prompts))
    encoded: list[PromptEmbedding] = []
    with _quiet_libraries():
        for start in range(0, len(unique), batch):
            part = family.encode(pipeline, unique[start : start + batch], max_sequence_length)
            encoded += [each.to(dtype=torch.bfloat16) for each in part]
    number = {prompt: row for row, prompt in enumerate(unique)}
    return PromptEmbeddings(tuple(prompts), torch.tensor([number[prompt] for prompt in prompts]), stacked(encoded))


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence the warnings of diffusers and transformers: about every long prompt there are two, which quote it."""
    libraries = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, verbosity in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
