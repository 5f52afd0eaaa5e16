"""Encode prompts once each, so that no text encoder is in memory or at work while training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from distill import families


@dataclass(frozen=True)
class PromptEmbeddings:
    """Embeddings of `prompts`: `index` int64 [prompts] points into the deduplicated
    `prompt` bfloat16 [unique, tokens, width] and `pooled` bfloat16 [unique, width]."""

    prompts: tuple[str, ...]
    index: torch.Tensor
    prompt: torch.Tensor
    pooled: torch.Tensor

    def rows(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [B] → float32 [B, tokens, width] and float32 [B, width]."""
        unique = self.index[numbers]
        return self.prompt[unique].float(), self.pooled[unique].float()

    def of(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """One prompt's rows, batch 1. Raises KeyError for a prompt that is not in the cache."""
        if prompt not in self.prompts:
            raise KeyError(f"prompt {prompt!r} is not in the embedding cache")
        return self.rows(torch.tensor([self.prompts.index(prompt)]))


@torch.no_grad()
def encode(pipeline, prompts: Sequence[str], max_sequence_length: int, batch: int = 64) -> PromptEmbeddings:
    """Encode every distinct prompt once with the pipeline's own text encoders.

    `pipeline` is of a known family; prompts may not contain line breaks (ValueError).
    """
    if any("\n" in prompt for prompt in prompts):
        raise ValueError("a prompt contains a line break; write one prompt per line")
    family = families.of(pipeline)
    unique = list(dict.fromkeys(prompts))
    encoded = []
    for start in range(0, len(unique), batch):
        part = unique[start : start + batch]
        prompt, pooled = family.encode(pipeline, part, max_sequence_length)
        encoded.append((prompt.bfloat16(), pooled.bfloat16()))
    number = {prompt: row for row, prompt in enumerate(unique)}
    return PromptEmbeddings(
        tuple(prompts),
        torch.tensor([number[prompt] for prompt in prompts]),
        torch.cat([prompt for prompt, _ in encoded]),
        torch.cat([pooled for _, pooled in encoded]),
    )
