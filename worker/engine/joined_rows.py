"""The tensors of the batch that ran last, kept whole: rows that step together again are not joined anew."""

from collections.abc import Sequence

import torch

from worker.engine.denoising_step import StepOutputs
from worker.engine.row import Row
from worker.families.prompt_embeddings import PromptEmbedding, stacked


class JoinedRows:
    """Latents and embeddings of the last batch."""

    def __init__(self) -> None:
        self._stepped: list[Row] = []
        self._latents = torch.empty(0)
        self._parts: tuple[torch.Tensor, ...] = ()
        self._embedded: tuple[list[Row], int] = [], 0
        self._embeddings: tuple[PromptEmbedding, ...] = ()

    def latents_of(self, batch: list[Row]) -> torch.Tensor:
        """Return the latents of `batch`, whose rows have begun: fp32 [B, C, h, w]."""
        if batch == self._stepped and all(row.latents is part for row, part in zip(batch, self._parts, strict=False)):
            return self._latents
        return torch.stack([row.latents for row in batch if row.latents is not None])

    def embeddings_of(
        self, batch: list[Row], kinds: Sequence[Sequence[PromptEmbedding]], length: int
    ) -> tuple[PromptEmbedding, ...]:
        """Return each of `kinds`, embeddings of `batch`, as one of B rows, padded to `length`."""
        if not self._embeddings or self._embedded != (batch, length):
            self._embedded = batch, length
            self._embeddings = tuple(stacked(embeddings, length) for embeddings in kinds)
        return self._embeddings

    def part(self, rows: list[Row], batch: list[Row], outputs: StepOutputs) -> None:
        """Give each of `rows` its part of the `outputs` of a step of `batch`, which begins with them."""
        self._stepped, self._latents, self._parts = batch, outputs.latents, outputs.latents.unbind()[: len(rows)]
        for row, latents, pred_x0 in zip(rows, self._parts, outputs.pred_x0.unbind(), strict=False):
            row.advance(latents, pred_x0)
