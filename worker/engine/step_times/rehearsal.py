"""Run batches of made-up rows: first calls, graphs and measurements, before and beside serving."""

import logging
import time
from functools import partial

import torch

from jobs.clock import steady_time
from jobs.models import ImageTask
from jobs.structured_logging import progress
from worker.device import accelerator
from worker.engine.decoded import Decoded
from worker.engine.denoising_step import StepInputs
from worker.engine.model_runner import ModelRunner
from worker.engine.outcomes import Failure
from worker.engine.row import Row
from worker.engine.scheduler import Size
from worker.engine.step_times.batch_sizes import measured
from worker.engine.step_times.timetable import Timetable

log = logging.getLogger(__name__)

TIMED_RUNS = 3
"""Number of runs at warm-up, of which the fastest counts."""


class Rehearsal:
    """Rehearses steps of `runner`, and enters what they take into `timetable`; on the thread of the engine."""

    def __init__(self, runner: ModelRunner, timetable: Timetable, steps: int) -> None:
        self._runner, self._timetable, self._steps = runner, timetable, steps

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Run every stage at every size and bucket, largest first, so that no request pays for first calls.

        Captures all graphs and measures the steps. Batches that do not fit into memory, beside the embeddings that will
        be kept, are left out, and what is decoded at once is as much as fits. Raises RuntimeError when the model gives
        NaN or infinity, or when a single row does not fit.
        """
        self._runner.begin(_rows(next(iter(self._timetable.step_times)), 1))  # says how large an embedding is
        with self._runner.room_for_embeddings():
            self._keep_what_fits()
            for size in self._timetable.step_times:
                self._runner.rehearse_picture(size)
        self._runner.free_memory()  # what runs before the captures left on the captures' stream
        self._measure_encoding(min(map(self._timetable.largest, self._timetable.step_times)))
        with progress("timing the steps", len(self._timetable.step_times)) as begin:
            for size, times in self._timetable.step_times.items():
                begin(f"{size[1]}×{size[0]}")
                # What is not padded is interpolated: then powers of two will do.
                pads = self._runner.pads
                few = [rows for rows in times if pads or rows & (rows - 1) == 0 or rows == max(times)]
                self.set_times(size, measured(partial(self.time, size), few))
        for (height, width), times in self._timetable.step_times.items():
            batches = ", ".join(f"{1000 * seconds:.0f} ms for {rows}" for rows, seconds in times.items())
            log.info("a step of %d×%d pixels takes, by the pictures in a batch, %s", width, height, batches)

    def _keep_what_fits(self) -> None:
        """Run all batches, and leave out the largest until the others fit beside the memory of all graphs."""
        while size := self._too_large():
            # A batch's graph stays taken, also when its pictures cannot be decoded beside it.
            self._runner.eager.drop_graphs()
            self._runner.decoding.at_once = {}
            self.forget(size, self._timetable.largest(size))
            self._runner.strict_batch[size] = self._timetable.largest(size)
        self._runner.decoding.keep_for_strict()

    def _too_large(self) -> Size | None:
        """Return a size whose largest batch takes memory that others need; None when all that is scheduled fits."""
        batches = self.batches()
        if self._runner.eager.has_graphs:  # what is decoded at once has to fit beside the last of them
            batches += [(size, self._timetable.largest(size)) for size in self._timetable.step_times]
        with progress("warming up", len(batches)) as begin:
            for size, bucket in batches:
                begin(f"{size[1]}×{size[0]} in batches of {bucket}")
                try:
                    self._run(size, bucket)
                except RuntimeError as error:
                    # The largest first: where a single row does not fit, graphs of another size may have its memory.
                    several = [size for size, bucket in batches if bucket > 1]
                    if not several or not accelerator.is_out_of_memory(error):
                        raise
                    return size if size in several else several[0]
        return None

    def batches(self) -> list[tuple[Size, int]]:
        """Return size and number of rows of all batches that are measured, the largest in pixels first."""
        found = [(size, rows) for size in self._timetable.step_times for rows in self._timetable.measured(size)]
        return sorted(found, key=lambda batch: batch[0][0] * batch[0][1] * batch[1], reverse=True)

    def capture(self, size: Size, rows: int) -> None:
        """Capture the graphs of a batch that are missing."""
        for example in self.examples_of(size, rows):
            self._runner.executor.capture(example)

    def attempt(self, size: Size, rows: int) -> None:
        """Run a batch that is larger than those so far, and decode strict rows of every size beside its graph; nothing
        where there are no graphs.

        Raises RuntimeError when one of them does not fit; then the attempt is undone, and no graph is left.
        """
        if not self._runner.eager.has_graphs:
            return
        at_once = self._runner.decoding.at_once
        try:
            self.time(size, rows)
            for each in self._timetable.step_times:
                self._runner.rehearse_strict_decoding(each)
        except RuntimeError as error:
            error.with_traceback(None)  # whose frames keep the batch's tensors
            self.undo(at_once)
            raise

    def undo(self, at_once: dict[Size, int]) -> list[tuple[Size, int]]:
        """Decode `at_once` as before an attempt, and give its memory back; returns the batches to be captured anew."""
        self._runner.eager.drop_graphs()
        self._runner.decoding.at_once = at_once
        self._runner.free_memory()
        return self.batches() if self._runner.eager.has_graphs else []

    @torch.inference_mode()
    def time(self, size: Size, rows: int) -> float:
        """Run every stage for `rows` rows, unseen by the runner's `measure`; returns the seconds of a step, its share
        of the decoding included. Raises RuntimeError when it does not fit, and when a picture is not finite."""
        measure, self._runner.measure = self._runner.measure, lambda measured: None
        try:
            return self._run(size, rows)
        except RuntimeError as error:
            if accelerator.is_out_of_memory(error):
                self._runner.free_memory()
            raise
        finally:
            self._runner.measure = measure
            self._runner.idle()

    def set_times(self, size: Size, times: dict[int, float]) -> None:
        """Schedule batches of `size` by measured `times` from now on, up to the largest in them."""
        self._timetable.set(size, times, interpolated=not self._runner.pads)
        self._runner.largest_batch[size] = max(times)

    def forget(self, size: Size, too_large: int) -> None:
        """Schedule no more batches of `too_large` rows or above, since one ran out of memory."""
        if self._timetable.forget(size, too_large):
            most = self._runner.largest_batch[size] = self._timetable.largest(size)
            log.warning("out of memory: images of %s now run in batches of at most %d", size, most)
        self._runner.free_memory()

    @torch.inference_mode()
    def examples(self) -> list[StepInputs]:
        """Return a batch of every shape that graphs and compiled code are made for, largest first."""
        examples = []
        for size in self._timetable.step_times:
            for bucket in sorted(self._timetable.measured(size), reverse=True):
                examples += self.examples_of(size, bucket)
        return examples

    @torch.inference_mode()
    def examples_of(self, size: Size, count: int) -> list[StepInputs]:
        """Return a batch of `count` rows at every length of prompts, longest first."""
        rows = _rows(size, count)
        self._runner.begin(rows)
        return self._runner.examples(rows)

    def _run(self, size: Size, bucket: int) -> float:
        rows = _rows(size, bucket)
        self._runner.begin(rows)
        for example in self._runner.examples(rows):
            self._runner.executor.capture(example)
        self._runner.denoise(rows)
        for part in self._decoded(rows):
            for picture in part.pictures():
                if isinstance(picture, Failure):
                    raise RuntimeError(f"warm-up: {picture.detail}")
        decoding = rows[0].seconds["decode"] / self._steps
        self._timetable.set_decoding(size, bucket, decoding)
        return rows[0].seconds["denoise_step"] + decoding

    def _measure_encoding(self, largest: int) -> None:
        """Let prompts that wait be encoded along, up to `largest` in all, if these take less than twice the time of
        one."""
        alone, full = (min(self._encoding_s(prompts) for _ in range(TIMED_RUNS)) for prompts in (1, largest))
        self._runner.prompts.fill_to = largest if full < 2 * alone else 0

    def _encoding_s(self, prompts: int) -> float:
        started = time.perf_counter()
        encoded = self._runner.executor.encode(["warm-up"] * prompts)
        accelerator.wait_for(encoded[0].tokens.device)
        return time.perf_counter() - started

    def _decoded(self, rows: list[Row]) -> list[Decoded]:
        """Decode `rows`, fewer at once when memory does not hold them."""
        try:
            return self._runner.decode(rows)
        except RuntimeError as error:
            if not accelerator.is_out_of_memory(error) or not self._runner.decode_fewer(rows):
                raise
        self._runner.free_memory()  # only here: within the handler the traceback keeps the failed batch's tensors
        return self._decoded(rows)


def _rows(size: Size, count: int) -> list[Row]:
    about = {"job_id": "warm-up", "index": 0, "seed": 0, "created": steady_time(), "height": size[0], "width": size[1]}
    prompts = [f"warm-up {number}" for number in range(count)]
    return [Row(prompt, ImageTask.model_validate({**about, "prompt": prompt})) for prompt in prompts]
