"""Give rows that start what they begin with."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import torch

from jobs.queue.claims import SourceFiles
from worker.engine.row import Row, Start
from worker.engine.row_starts.prompt_cache import PromptCache
from worker.engine.row_starts.source_latents import SourceLatents, painted
from worker.families.prompt_embeddings import PromptEmbedding
from worker.model_folder.loading import LoadedModel
from worker.sampling import noise
from worker.sampling.known_part import KnownPart, entered
from worker.sampling.step_table import StepTable

PROMPTS_COUNTED = 256
"""Number of prompts whose count of tokens is kept."""


class RowStarts:
    """Begins rows of `model`, whose `prompts` are encoded in batches of up to `max_batch`."""

    def __init__(self, model: LoadedModel, max_batch: int) -> None:
        self._model, self._network = model, model.network
        self.prompts = PromptCache(model.network.encode, max_batch)
        self._prompt_tokens = lru_cache(PROMPTS_COUNTED)(model.network.prompt_tokens)
        self._pictures = SourceLatents(model.network)
        self._scale = model.contract.guidance_scale
        self._negative = self._own_negative() if self._scale > 1 else None

    def encode_by(self, encode: Callable[[Sequence[str]], list[PromptEmbedding]]) -> None:
        """Encode every prompt anew, by `encode`."""
        fill_to = self.prompts.fill_to
        self.prompts = PromptCache(encode, self.prompts.max_batch)
        self.prompts.fill_to = fill_to

    def begin(self, rows: Sequence[Row], strict: bool, waiting: Iterable[str]) -> None:
        """Begin `rows`, with `strict` embeddings or any. Prompts `waiting` may be encoded along."""
        embeddings = self.prompts.get([row.task.prompt for row in rows], strict, waiting)
        for row, embedding, negative in zip(rows, embeddings, self._negatives(rows, strict), strict=True):
            self._begin(row, embedding, negative)

    def prepare(self, rows: Sequence[Row]) -> None:
        """Do beforehand what needs no device: draw the noise of `rows`, and count the tokens of their prompts."""
        for row in rows:
            row.noise = self._drawn(row)
            self._prompt_tokens(row.task.prompt)

    def _drawn(self, row: Row) -> torch.Tensor:
        """The noise of a row, as it was drawn beforehand or else drawn now: fp32 [draws, C, h, w] on the host."""
        if row.noise is not None:
            return row.noise
        shape = self._network.latent_shape(row.task.height, row.task.width)
        return noise.draw(row.task.seed, shape, self._table(row).noise_draws)

    def _table(self, row: Row) -> StepTable:
        return self._model.size_tables.get(row.size, self._model.table)

    def _begin(self, row: Row, embedding: PromptEmbedding, negative: PromptEmbedding | None) -> None:
        task, device = row.task, self._network.device
        table = self._table(row)
        drawn, row.noise = self._drawn(row).to(device), None
        latents, step, known = drawn[0] * table.start, 0, None
        if source := task.source:
            step, levels = table.entry(source.strength), table.levels.to(device)
            if step or source.mask:
                files = _files(row)
                clean = self._pictures.encoded(source, files)
                latents = entered(clean, drawn[0], levels[step]) if step else latents
                if files.mask:
                    known = KnownPart(clean, drawn[0], painted(files.mask, clean), levels)
                if step == table.steps:
                    row.pred_x0 = clean
        scale = None if negative is None else torch.tensor(task.guidance_scale or self._scale, device=device)
        tokens = self._prompt_tokens(task.prompt)
        negative_tokens = self._prompt_tokens(task.negative_prompt) if negative and task.negative_prompt else None
        row.begin(Start(embedding, drawn[1:], tokens, negative, negative_tokens, scale, known), latents, step)

    def _negatives(self, rows: Sequence[Row], strict: bool) -> list[PromptEmbedding | None]:
        """Return what guidance leads each row away from, None without guidance."""
        own = [row.task.negative_prompt for row in rows if self._negative and row.task.negative_prompt]
        embeddings = iter(self.prompts.get(own, strict) if own else [])
        return [next(embeddings) if self._negative and row.task.negative_prompt else self._negative for row in rows]

    def _own_negative(self) -> PromptEmbedding:
        with torch.inference_mode():
            return self._network.negative(self.prompts.get([self._network.negative_prompt], strict=True)[0])


def _files(row: Row) -> SourceFiles:
    if row.source is None:
        raise ValueError("the picture that the call brought has expired")
    return row.source
