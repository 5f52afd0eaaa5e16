"""Run batches of rows on the device: prompts, one denoising step, pixels."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch

from jobs.clock import steady_time
from worker.device import accelerator
from worker.engine.decode_batches import DecodeBatches
from worker.engine.decoded import Decoded
from worker.engine.denoising_step import Guidance, StepInputs
from worker.engine.executor import Executor
from worker.engine.joined_rows import JoinedRows
from worker.engine.outcomes import Measured
from worker.engine.row import Row, Start
from worker.engine.row_starts.prompt_cache import PromptCache
from worker.engine.row_starts.starts import RowStarts
from worker.engine.scheduler import Size, bucket_for
from worker.engine.step_graphs import Graph
from worker.families.prompt_embeddings import PromptEmbedding, stacked
from worker.model_folder.loading import LoadedModel

LAST_MOMENT_S = 0.0003
"""Seconds before a step is expected to end from which the host only waits for that."""

RISE, FALL = 1.05, 0.9
"""Factors by which the expected time of a step rises at most from one step to the next, and falls when the host was
late for the end of one."""


class ModelRunner:
    """Runs batches whose rows all have one size, and reports the cost of each to `measure`.

    `eager` runs the networks as they were loaded, `executor` is that or, from a switch on, a twin of it. Where it is
    batch-invariant, `executor` runs every row; else strict rows take `eager` at one batch size, `strict_batch`. Fast
    batches are padded, at most to `largest_batch`, where they are compiled or replayed from graphs. `decoding` says how
    many rows are decoded at once.
    """

    def __init__(
        self,
        model: LoadedModel,
        max_batch: int,
        new_graph: Callable[[], Graph] | None,
    ) -> None:
        self._model, self._network, self._device = model, model.network, model.network.device
        self._draws = model.table.noise_draws
        self._new_graph = new_graph
        self.measure: Callable[[Measured], None] = lambda measured: None
        self._starts = RowStarts(model, max_batch)
        self.strict_batch = dict.fromkeys(model.contract.sizes, max_batch)
        self.largest_batch = dict(self.strict_batch)
        self.decoding = DecodeBatches()
        # On the device already: a list of numbers would have to be copied to it.
        self._step_numbers = torch.arange(model.table.steps, device=self._device).unbind()
        self._free_since: float | None = None
        self._joined = JoinedRows()
        self._prepared: tuple[list[Row], list[Row], StepInputs] | None = None
        self._expected: dict[tuple[Size, int], float] = {}
        self.eager = Executor(model, model.network, new_graph, any_rows=new_graph is None)
        self.executor = self.eager

    def new_compiled(self) -> Executor:
        """Return an executor on the same weights that compiles each shape when it is first run; for any thread."""
        return Executor(self._model, self._network.compiled(), self._new_graph)

    def new_converted(self) -> Executor:
        """Return an executor whose networks OpenVINO runs, converting each shape when it is first run; for any
        thread."""
        return Executor(self._model, self._network.converted(), any_rows=True)

    def switch(self, executor: Executor) -> None:
        """Run rows on `executor` from the next step on, and encode every prompt by it anew."""
        self.executor, self._prepared = executor, None
        self._starts.encode_by(executor.encode)

    @property
    def prompts(self) -> PromptCache:
        return self._starts.prompts

    def needs_strict_batch(self, rows: Sequence[Row]) -> bool:
        """Return whether `rows` run together have to fill the largest batch, for one of them to keep its bits."""
        return not self.executor.batch_invariant and any(row.strict for row in rows)

    def begin(self, rows: list[Row], waiting: Iterable[str] = ()) -> None:
        """Give the rows that start now what they begin with. Prompts `waiting` may be encoded along."""
        fresh = [row for row in rows if row.start is None]
        if not fresh:
            return
        now, started = steady_time(), time.perf_counter()
        hits = self.prompts.hits
        self._starts.begin(fresh, self.needs_strict_batch(fresh), waiting)
        for row in fresh:
            queued = max(0.0, now - row.task.created)
            row.spend("queue", queued, now - queued)
        self._account("encode", fresh, 0, started, cached=self.prompts.hits - hits)

    def prepare(self, rows: list[Row]) -> None:
        """Make the inputs of the next step of `rows` beforehand, or, of those that have not begun, what needs no
        device. Raises RuntimeError when memory runs out."""
        if fresh := [row for row in rows if row.start is None]:
            self._starts.prepare(fresh)
        elif rows:
            batch = self.padded(rows)
            self._prepared = rows, batch, self._inputs(batch)

    def denoise(self, rows: list[Row], meanwhile: Callable[[float], None] = lambda until: None) -> float:
        """Advance every row by its own next step; returns the seconds that it took.

        On an asynchronous device `meanwhile` is called while the step runs, when the rows have what it makes of them.
        It is to return by a time of `time.perf_counter`, shortly before the device is done.
        """
        started = time.perf_counter()
        batch, inputs = self._inputs_of(rows)
        executor = self.executor_for(rows)
        graph_miss = executor.graph_miss(inputs)
        launched = time.perf_counter()
        gap, self._free_since = self._free_since and launched - self._free_since, None
        outputs = executor.step(inputs)
        before = [(row.step, row.latents, row.pred_x0) for row in rows]
        kind = rows[0].size, len(batch)
        try:
            self._joined.part(rows, batch, outputs)
            if self._network.asynchronous:
                meanwhile(launched + self._expected.get(kind, 0.0) - LAST_MOMENT_S)
            late = self._network.idle
            # A step ends when the device is done, else the host runs ahead and rows cannot join in time.
            self._network.wait()
        except BaseException:
            self._prepared = None
            for row, state in zip(rows, before, strict=True):
                row.undo(*state)
            raise
        self._free_since = time.perf_counter()
        self._expect(kind, self._free_since - launched, late)
        for row in rows:
            row.bucket = len(batch)
        replayed = executor.has_graphs and graph_miss is None
        return self._account(
            "denoise_step", rows, len(batch) - len(rows), started, replayed=replayed, graph_miss=graph_miss, gap=gap
        )

    def idle(self) -> None:
        """Say that nothing is left to do: the time until the next step is no gap."""
        self._free_since = None
        self._joined = JoinedRows()
        self._prepared = None

    @torch.inference_mode()
    def decode(self, rows: list[Row]) -> list[Decoded]:
        """Decode latents, as many rows at once as there is memory for; returns the parts.

        On a CPU the rest of the work on the pixels is left for whoever asks for the pictures.
        """
        started = time.perf_counter()
        most, executor = self._decoded_at_once(rows), self.executor_for(rows)
        parts, padding = [], 0
        for begin in range(0, len(rows), most):
            some = rows[begin : begin + most]
            batch = self.padded(some, most)
            latents = _latents(batch)
            part = Decoded(some, latents, executor.decode(latents))
            # On an accelerator by small kernels, launched while the decoder runs.
            parts.append(part.on_host() if accelerator.has_accelerator(self._device) else part)
            padding += len(batch) - len(some)
        self._account("decode", rows, padding, started)
        return parts

    def decode_fewer(self, rows: list[Row]) -> bool:
        """Decode fewer rows at once from now on, since `rows` ran out of memory; False when these were a single one."""
        most = self._decoded_at_once(rows)
        tried = len(self.padded(rows[:most], most))
        self.decoding.halve(rows[0].size, tried)
        return tried > 1

    def decodes_at_once(self, latents: torch.Tensor) -> bool:
        """Return whether so many rows as `latents` [B, C, h, w] are decoded together."""
        shape = latents.shape[1:]
        size = next(size for size in self.largest_batch if self._network.latent_shape(*size) == shape)
        return self.decoding.most(size, len(latents)) == len(latents)

    def padded(self, rows: list[Row], most: int | None = None) -> list[Row]:
        """Return `rows`, and the first of them repeated until they fill a bucket, of at most `most` rows, where that is
        needed.

        Eager code and OpenVINO take any number of rows at its price; graphs and compiled code are made for the buckets.
        """
        strict = self.needs_strict_batch(rows)
        if not self.pads and not strict:
            return rows
        bucket = bucket_for(len(rows), strict, most or self._most(rows))
        return rows + [rows[0]] * (bucket - len(rows))

    def _most(self, rows: list[Row]) -> int:
        """The size of a strict batch, if `rows` need one, or of the largest."""
        size = rows[0].size
        # A rehearsal of a larger batch runs before that is scheduled.
        return self.strict_batch[size] if self.needs_strict_batch(rows) else max(self.largest_batch[size], len(rows))

    def _decoded_at_once(self, rows: list[Row]) -> int:
        return self.decoding.most(rows[0].size, self._most(rows), self.needs_strict_batch(rows))

    @property
    def pads(self) -> bool:
        """Return whether batches without strict rows are padded to a bucket."""
        return not self.executor.any_rows

    def room_for_embeddings(self) -> AbstractContextManager[None]:
        """Keep the memory that embeddings of prompts will take occupied meanwhile."""
        return accelerator.held(self.prompts.bytes_to_come(), self._device)

    def free_memory(self) -> None:
        """Give memory that nothing uses back to the device."""
        accelerator.free_memory(self._device)

    def examples(self, rows: list[Row]) -> list[StepInputs]:
        """Return the inputs of a step of these rows, which have begun, at every length of prompts, longest first."""
        lengths = self._network.text_lengths
        return [self._inputs(rows, length) for length in reversed(lengths)] if lengths else [self._inputs(rows)]

    @torch.inference_mode()
    def rehearse_strict_decoding(self, size: Size) -> None:
        """Decode as many rows of `size` as strict ones are at once. Raises RuntimeError when memory runs out."""
        rows = self.decoding.most(size, self.strict_batch[size], strict=True)
        latents = torch.zeros(rows, *self._network.latent_shape(*size), device=self._device)
        self.eager.decode(latents)
        accelerator.wait_for(self._device)

    def rehearse_picture(self, size: Size) -> None:
        """Encode a picture of `size`, where the model takes any."""
        if self._network.takes_pictures:
            self._network.encode_picture(torch.zeros(1, 3, *size, device=self._device))

    def _expect(self, kind: tuple[Size, int], took: float, late: bool) -> None:
        """Expect so many seconds of the next step of this size and batch, or less where the host was late."""
        self._expected[kind] = min(took, (FALL if late else RISE) * self._expected.get(kind, took))

    def _inputs_of(self, rows: list[Row]) -> tuple[list[Row], StepInputs]:
        """Return `rows` padded, and the inputs of their next step, as they were prepared or else made now."""
        prepared, self._prepared = self._prepared, None
        if prepared and prepared[0] == rows:
            return prepared[1:]
        batch = self.padded(rows)
        return batch, self._inputs(batch)

    def _inputs(self, batch: list[Row], text_length: int | None = None) -> StepInputs:
        """The next step of these rows, which have begun; for examples, prompts are cut or padded to `text_length`."""
        starts = [row.start for row in batch if row.start is not None]
        step_noise = [start.step_noise[row.step] for row, start in zip(batch, starts, strict=True) if self._draws > 1]
        embeddings, *negative = self._embeddings(batch, starts, text_length)
        scales = [start.scale for start in starts if start.scale is not None]
        return StepInputs(
            _latents(batch) if text_length else self._joined.latents_of(batch),
            torch.stack([self._step_numbers[row.step] for row in batch]),
            embeddings,
            torch.stack(step_noise) if step_noise else None,
            Guidance(negative[0], torch.stack(scales)) if scales else None,
        )

    def _embeddings(
        self, batch: list[Row], starts: Sequence[Start], text_length: int | None
    ) -> tuple[PromptEmbedding, ...]:
        """The embeddings of these rows and, under guidance, those that it leads away from."""
        negatives = [start.negative for start in starts if start.negative is not None]
        kinds = [kind for kind in ([start.embedding for start in starts], negatives) if kind]
        if text_length is not None:
            return tuple(stacked([each.resized(text_length) for each in kind], text_length) for kind in kinds)
        return self._joined.embeddings_of(batch, kinds, self._text_length(batch, list(chain(*kinds))))

    def _text_length(self, batch: list[Row], embeddings: Sequence[PromptEmbedding]) -> int:
        """The shortest of the network's text lengths that holds all prompts; with strict rows always the longest, so
        that no neighbour changes their shapes."""
        lengths = self._network.text_lengths
        if not lengths:
            return 0
        needed = lengths[-1] if any(row.strict for row in batch) else max(each.length for each in embeddings)
        return next((length for length in lengths if length >= needed), needed)

    def executor_for(self, rows: list[Row]) -> Executor:
        """Return what runs a batch of `rows`."""
        return self.eager if self.needs_strict_batch(rows) else self.executor

    def _account(self, stage: str, rows: list[Row], padding: int, started: float, **more: Any) -> float:
        seconds = time.perf_counter() - started
        if stage != "denoise_step" and self._free_since is not None:
            self._free_since += seconds
        began = steady_time() - seconds
        for row in rows:
            row.spend(stage, seconds, began)
            row.work_s += seconds / len(rows)
        self.measure(Measured(stage, len(rows), padding, seconds, **more))
        return seconds


def _latents(batch: Sequence[Row]) -> torch.Tensor:
    return torch.stack([row.latents for row in batch if row.latents is not None])
