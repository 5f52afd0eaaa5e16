"""The embedding of a prompt as named tensors, and batches of embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class PromptEmbedding:
    """One prompt as the denoiser reads it: named parts on one device; None for a part that the family does not have.

    In a batch every part has a leading dimension of B rows. Everything but a family's own code goes over `parts`.

    tokens: [length, width], the hidden states of the text encoders.
    pooled: [width], one vector for the whole prompt.
    mask: bool [length], True for real tokens; None when the denoiser attends to all of them. Only prompts with a mask
        may differ in length.
    guidance: float32 [], the scale that a denoiser with embedded guidance is told, for each row its own.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    guidance: torch.Tensor | None = None

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """The parts that are there, by name."""
        return {name: part for name, part in vars(self).items() if part is not None}

    @property
    def length(self) -> int:
        """Number of tokens, padding included."""
        return self.tokens.shape[-2]

    @property
    def nbytes(self) -> int:
        """The memory of all parts in bytes."""
        return sum(part.nbytes for part in self.parts.values())

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """Apply `function` to every part."""
        return replace(self, **{name: function(part) for name, part in self.parts.items()})

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move every part to `device`, and cast those of floating point to `dtype`."""
        return self.map(lambda part: part.to(device=device, dtype=dtype if part.is_floating_point() else None))

    def resized(self, length: int) -> Self:
        """Cut the tokens to `length`, or pad them with zeros that the mask leaves out.

        Raises ValueError where there is no mask.
        """
        missing = length - self.length
        if missing == 0:
            return self
        if self.mask is None:
            raise ValueError(f"an embedding of {self.length} tokens has no mask and cannot have {length}")
        return replace(self, tokens=F.pad(self.tokens, (0, 0, 0, missing)), mask=F.pad(self.mask, (0, missing)))


def stacked(embeddings: Sequence[PromptEmbedding], length: int = 0) -> PromptEmbedding:
    """Make one batch of single embeddings, padded to the longest of them or to `length`, whichever is more."""
    length = max(length, *(each.length for each in embeddings))
    return _joined(torch.stack, [each.resized(length) for each in embeddings])


def repeated(embedding: PromptEmbedding, rows: int) -> PromptEmbedding:
    """Make a batch with the single `embedding` in each of its `rows`; a view, nothing is copied."""
    return embedding.map(lambda part: part.expand(rows, *part.shape))


def concatenated(first: PromptEmbedding, second: PromptEmbedding) -> PromptEmbedding:
    """Make one batch of two, padded to the longer of them."""
    length = max(first.length, second.length)
    return _joined(torch.cat, [first.resized(length), second.resized(length)])


def _joined(join: Callable[[list[torch.Tensor]], torch.Tensor], embeddings: list[PromptEmbedding]) -> PromptEmbedding:
    return PromptEmbedding(**{name: join([getattr(each, name) for each in embeddings]) for name in embeddings[0].parts})
