"""What the device does with a batch of rows: begin, one denoising step, decode."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.diversity import LAYOUT_GRID
from worker.engine.denoising_step import StepInputs
from worker.engine.device_path import DevicePath
from worker.engine.latent_descriptor import latent_descriptors
from worker.engine.prompt_cache import PromptCache
from worker.engine.row import Picture, Row, Start
from worker.engine.scheduler import bucket_for
from worker.engine.step_graphs import Graph
from worker.families.prompt_embeddings import PromptEmbedding, stacked
from worker.model_folder import LoadedModel
from worker.pixels import to_uint8
from worker.sampling import noise

TIMED_RUNS = 3
"""Of what is timed at warm-up the fastest of so many runs counts."""


@dataclass(frozen=True)
class Measured:
    """What one batch of a stage (encode, denoise_step, decode) cost.

    `rows` images with `padding` rows beside them took `seconds`; `cached` of them had their embedding at hand.
    With CUDA graphs on, a denoising step was `replayed`, or why not is its `graph_miss`.
    """

    stage: str
    rows: int
    padding: int
    seconds: float
    cached: int = 0
    replayed: bool = False
    graph_miss: str | None = None


class BatchStages:
    """The stages of batches whose rows all have one size, each told to `measure`.

    Batches are padded to a bucket where they are strict, compiled or replayed from graphs.

    Strict rows always take `strict_path`, the networks as they were loaded, in batches of `strict_batch`; a batch
    without any takes `path`.
    """

    def __init__(
        self,
        model: LoadedModel,
        max_batch: int,
        new_graph: Callable[[], Graph] | None,
        measure: Callable[[Measured], None],
    ) -> None:
        self._network = model.network
        self._device = model.network.device
        self._draws = model.table.noise_draws
        self._measure = measure
        self.prompts = PromptCache(model.network.encode, max_batch)
        self.strict_batch = dict.fromkeys(model.contract.sizes, max_batch)
        self._model, self._new_graph = model, new_graph
        self._negative = self._negative_embedding()
        self.strict_path = self.path = DevicePath(model, model.network, self._negative, new_graph)

    def compiled_path(self) -> DevicePath:
        """A path on the same weights that compiles each shape when it is first run; any thread may make it."""
        return DevicePath(self._model, self._network.compiled(), self._negative, self._new_graph)

    def begin(self, rows: list[Row], waiting: Sequence[str] = ()) -> None:
        """Give the rows that start now their embedding and their noise. Prompts `waiting` may be encoded along."""
        fresh = [row for row in rows if row.start is None]
        if not fresh:
            return
        now, started = time.time(), time.perf_counter()
        hits = self.prompts.hits
        embeddings = self.prompts.get([row.task.prompt for row in fresh], any(row.strict for row in fresh), waiting)
        for row, embedding in zip(fresh, embeddings, strict=True):
            shape = self._network.latent_shape(row.task.height, row.task.width)
            drawn = noise.draw(row.task.seed, shape, self._draws).to(self._device)
            row.start, row.latents = Start(embedding, drawn[1:]), drawn[0]
            row.spend("queue", max(0.0, now - row.task.created))
        self._account("encode", fresh, 0, started, cached=self.prompts.hits - hits)

    def measure_encoding(self, largest: int) -> None:
        """Let prompts that wait be encoded along, up to `largest` in all, if these take less than twice the time of
        one."""
        alone, full = (min(self._encoding_s(prompts) for _ in range(TIMED_RUNS)) for prompts in (1, largest))
        self.prompts.fill_to = largest if full < 2 * alone else 0

    def _encoding_s(self, prompts: int) -> float:
        started = time.perf_counter()
        self._network.encode(["warm-up"] * prompts)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - started

    def capture(self, rows: list[Row]) -> None:
        """Make the graph of the step of these rows, which have begun, unless it was tried before."""
        inputs = self.inputs(rows)
        if self.path.graph_miss(inputs) == "batch":
            self.path.capture(inputs)

    def denoise(self, rows: list[Row]) -> None:
        """Advance every row by its own next step."""
        started = time.perf_counter()
        batch = self.padded(rows)
        inputs, path = self.inputs(batch), self._path_for(rows)
        graph_miss = path.graph_miss(inputs)
        outputs = path.step(inputs)
        if self._device.type == "cuda":
            # A step ends when the device is done, else the host runs ahead and rows cannot join in time.
            torch.cuda.current_stream(self._device).synchronize()
        for row, latents, pred_x0 in zip(rows, outputs.latents, outputs.pred_x0, strict=False):
            row.latents, row.pred_x0, row.bucket = latents, pred_x0, len(batch)
            row.step += 1
        replayed = path.has_graphs and graph_miss is None
        self._account("denoise_step", rows, len(batch) - len(rows), started, replayed=replayed, graph_miss=graph_miss)

    def decode(self, rows: list[Row]) -> list[Picture | None]:
        """Latents to pixels; None for a row whose latents or pixels are not finite."""
        started = time.perf_counter()
        batch = self.padded(rows)
        latents = _latents(batch)
        images = self._path_for(rows).decode(latents)
        finite = (latents.isfinite().flatten(1).all(1) & images.isfinite().flatten(1).all(1)).cpu()
        pixels = to_uint8(images).cpu().numpy()
        seen = latent_descriptors(latents, LAYOUT_GRID).tolist()
        self._account("decode", rows, len(batch) - len(rows), started)
        return [
            Picture(row.task_key, row.task.seed, image, layout, row.bucket, row.seconds, row.began) if sound else None
            for row, image, layout, sound in zip(rows, pixels, seen, finite, strict=False)
        ]

    def padded(self, rows: list[Row]) -> list[Row]:
        """`rows`, and the first of them repeated until they fill a bucket where that is needed.

        Eager code takes any number of rows at its price; graphs and compiled code are made for the buckets alone.
        """
        strict = any(row.strict for row in rows)
        if self.path is self.strict_path and not self.path.has_graphs and not strict:
            return rows
        bucket = bucket_for(len(rows), strict, self.strict_batch[rows[0].size])
        return rows + [rows[0]] * (bucket - len(rows))

    def inputs(self, batch: list[Row]) -> StepInputs:
        """What the next step of these rows, which have begun, works on."""
        starts = [row.start for row in batch if row.start is not None]
        step_noise = [start.step_noise[row.step] for row, start in zip(batch, starts, strict=True) if self._draws > 1]
        indices = torch.tensor([row.step for row in batch], pin_memory=self._device.type == "cuda")
        return StepInputs(
            _latents(batch),
            indices.to(self._device, non_blocking=True),
            stacked([start.embedding for start in starts]),
            torch.stack(step_noise) if step_noise else None,
        )

    def _negative_embedding(self) -> PromptEmbedding | None:
        if self._model.contract.guidance_scale <= 1:
            return None
        with torch.inference_mode():
            return self._network.negative(self.prompts.get([""], strict=True)[0])

    def _path_for(self, rows: list[Row]) -> DevicePath:
        return self.strict_path if any(row.strict for row in rows) else self.path

    def _account(self, stage: str, rows: list[Row], padding: int, started: float, **more: Any) -> None:
        seconds = time.perf_counter() - started
        for row in rows:
            row.spend(stage, seconds)
        self._measure(Measured(stage, len(rows), padding, seconds, **more))


def _latents(batch: Sequence[Row]) -> torch.Tensor:
    return torch.stack([row.latents for row in batch if row.latents is not None])
