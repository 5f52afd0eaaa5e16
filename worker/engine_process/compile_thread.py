"""Compile or convert the networks beside the serving engine, and switch it over when every shape is ready."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import torch

from jobs.structured_logging import progress
from worker.device import accelerator
from worker.engine.denoising_step import StepInputs
from worker.engine.engine import Engine
from worker.engine.executor import Executor
from worker.engine.scheduler import Size, buckets
from worker.engine.step_times.batch_sizes import measured
from worker.engine_process.device_thread import DeviceThread
from worker.errors import DeviceLostError
from worker.startup import Compiler

log = logging.getLogger(__name__)

TOLERANCE = 0.05
"""Largest relative error (root mean square) of a compiled prediction: bfloat16 gives about 0.01."""

RECOMPILE_LIMIT = 4096
"""torch's default of 8 guards against an endless number of shapes; here their number is known."""

TRIES = 5
"""Times that a shape is compiled, or captured, at most, while serving beside it takes the memory."""


class CompileThread(threading.Thread):
    """Compiles a twin of the engine's networks, then switches the engine to it between two steps.

    The engine runs eagerly until then, and for good when the compiler fails or its code is wrong. Afterwards this
    process compiles nothing more: a batch of a new shape runs eagerly.
    With OpenVINO strict rows wait until it is clear what is to run them: OpenVINO, if it proves batch-invariant here.
    """

    def __init__(self, device: DeviceThread) -> None:
        super().__init__(name="compile", daemon=True)
        self._device = device

    def compile(
        self, engine: Engine, compiler: Compiler = "inductor", failed: Callable[[], None] = lambda: None
    ) -> None:
        """Start compiling for an `engine` that the device thread owns, and call `failed` if nothing comes of it."""
        self._engine, self._compiler, self._failed = engine, compiler, failed
        engine.strict_waits, engine.isolation.shares_memory = compiler == "openvino", True
        self.start()

    def run(self) -> None:
        torch.set_flush_denormal(True)
        accelerator.make_current(self._engine.model.network.device)
        # Each shape is compiled for itself, for each of the alike blocks that differs a little from the others.
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = RECOMPILE_LIMIT
        started = time.monotonic()
        try:
            executor, gained = self._switch_over()
        except DeviceLostError:
            pass  # as the end of the device thread says
        except Exception as error:
            self._device.doubt(error)
            log.warning("%s failed: serving on without (%s: %s)", self._compiler, type(error).__name__, error)
            log.debug("why it failed", exc_info=True)
            self._engine.compiling_failed = True
        else:
            log.info(
                "%s ready in %.0f s, and serving by it: %s; %s", self._compiler, time.monotonic() - started, gained,
                "strict images too" if executor.batch_invariant else "strict images by the eager networks",
            )  # fmt: skip
        finally:
            self._device.call(self._engine.end_compiling)
        if self._engine.compiling_failed:
            with suppress(DeviceLostError):  # as the end of the device thread says
                self._failed()

    def _switch_over(self) -> tuple[Executor, str]:
        """Return what serves from now on, and what that gains."""
        examples = self._device.call(self._engine.rehearsal.examples).result()
        log.info("%s compiles %d shapes beside serving", self._compiler, len(examples))
        executor = converted(self._engine, examples) if self._compiler == "openvino" else self._compiled(examples)
        before = {size: self._seconds_at_most(size) for size in self._engine.step_times}
        self._device.call(self._engine.switch, executor).result()
        for size in self._engine.step_times:
            times = measured(partial(self._seconds_of, size), self._measured(size))
            self._device.call(self._engine.rehearsal.set_times, size, times).result()
        return executor, "; ".join(_gain(size, seconds, self._measured(size)) for size, seconds in before.items())

    def _compiled(self, examples: list[StepInputs]) -> Executor:
        runner = self._engine.runner
        compiled = runner.new_compiled()
        with progress("compiling", len(examples)) as begin:
            for example in examples:
                begin(_shape(example))
                decodes = runner.decodes_at_once(example.latents)
                self._while_memory_is_short(partial(compile_shape, compiled, runner.eager, example, decodes))
        compiled.seal()  # before the captures: nothing is compiled on the thread that serves
        self._capture(compiled, examples)
        return compiled

    def _capture(self, compiled: Executor, examples: list[StepInputs]) -> None:
        """Capture every shape, and decode strict rows beside the graphs, if any. Raises RuntimeError when that
        fails; then the graphs that serve have their memory back."""
        runner = self._engine.runner
        works = [partial(capture_compiled, compiled, example) for example in examples]
        if compiled.has_graphs:
            works += [partial(runner.rehearse_strict_decoding, size) for size in self._engine.step_times]
        try:
            with progress(f"capturing {len(works)} graphs of compiled code"):
                for work in works:
                    self._while_memory_is_short(partial(self._on_device, work))
        except RuntimeError as error:
            error.with_traceback(None)  # whose frames keep tensors
            self._on_device(compiled.drop_graphs)
            capture_anew(self._device, self._engine, runner.decoding.at_once)
            raise

    def _while_memory_is_short(self, work: Callable[[], None]) -> None:
        """Do `work`; each time that memory runs out beside serving, give back what is free, and do it again."""
        for left in reversed(range(TRIES)):
            try:
                return work()
            except RuntimeError as error:
                if not left or not accelerator.is_out_of_memory(error):
                    raise
            log.info("out of memory beside serving: trying again")
            self._on_device(self._engine.runner.free_memory)

    def _on_device(self, work: Callable[[], None]) -> None:
        self._device.call(work).result()

    def _measured(self, size: Size) -> dict[int, float]:
        return self._device.call(self._engine.timetable.measured, size).result()

    def _seconds_at_most(self, size: Size) -> float:
        most = max(self._measured(size))
        return measured(partial(self._seconds_of, size), [most])[most]

    def _seconds_of(self, size: Size, rows: int) -> float:
        """Measure one step, between two others: images that wait run in between."""
        return self._device.call(self._engine.rehearsal.time, size, rows).result()


def capture_anew(device: DeviceThread, engine: Engine, at_once: dict[Size, int]) -> None:
    """Give back the memory of all graphs, and capture those of the batches that are scheduled, one batch between two
    steps; `at_once` is how many rows are decoded together."""
    for size, rows in device.call(engine.rehearsal.undo, at_once).result():
        device.call(engine.rehearsal.capture, size, rows).result()


def converted(engine: Engine, examples: list[StepInputs]) -> Executor:
    """Return an executor of `engine`'s networks in OpenVINO, which has run at the shapes of `examples`.

    Raises RuntimeError when its results are not those of the eager networks.
    """
    executor = engine.runner.new_converted()
    with progress("converting to OpenVINO", 1 + len(examples)) as begin:
        begin("text encoders")
        compile_encoders(executor, engine.runner.eager)
        for example in examples:
            begin(_shape(example))
            compile_shape(executor, engine.runner.eager, example)
    executor.seal()
    executor.batch_invariant = all(is_batch_invariant(executor, example) for example in examples)
    return executor


@torch.inference_mode()
def compile_shape(compiled: Executor, eager: Executor, example: StepInputs, decodes: bool = True) -> None:
    """Run step and, if so many rows are decoded at once, decoder at the shape of `example`, which compiles them.

    For any thread: it takes no graph. Raises RuntimeError when the results are not those of `eager`.
    """
    found, expected = compiled.step_without_graph(example), eager.step_without_graph(example)
    _check(found.pred_x0 - example.latents, expected.pred_x0 - example.latents, "denoiser")
    if decodes:
        _check(compiled.decode(expected.pred_x0), eager.decode(expected.pred_x0), "decoder")


@torch.inference_mode()
def capture_compiled(compiled: Executor, example: StepInputs) -> None:
    """Capture the graph of a shape that is compiled already. Raises RuntimeError where its code does not hold on this
    thread: what is not recorded from compiled code would be served as if it were."""
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled.step_without_graph(example)
        compiled.capture(example)


@torch.inference_mode()
def compile_encoders(compiled: Executor, eager: Executor) -> None:
    """Run the text encoders, which compiles them. Raises RuntimeError when the results are not those of `eager`."""
    prompts = ["warm-up", "a prompt of some more words"]
    for found, expected in zip(compiled.encode(prompts), eager.encode(prompts), strict=True):
        for name, part in expected.parts.items():
            if part.is_floating_point():
                _check(found.parts[name], part, "text encoders' output")


@torch.inference_mode()
def is_batch_invariant(executor: Executor, example: StepInputs) -> bool:
    """Return whether the rows of `example` have the same bits in parts of any size, and prompts alone as in a batch."""
    rows = len(example.latents)
    prompts = [f"prompt {number}" for number in range(rows)]
    whole, encoded = _made(executor, example), executor.encode(prompts)
    parts = [slice(start, start + size) for size in buckets(rows) for start in {0, rows - size}]
    return all(torch.equal(_made(executor, example.rows(part)), whole[part]) for part in parts) and all(
        torch.equal(executor.encode([prompt])[0].tokens, batched.tokens)
        for prompt, batched in zip(prompts, encoded, strict=True)
    )


def _made(executor: Executor, inputs: StepInputs) -> torch.Tensor:
    """The next latents and the decoded images of all rows, side by side."""
    latents = executor.step(inputs).latents
    return torch.cat([latents.flatten(1), executor.decode(latents).flatten(1)], 1)


def _shape(example: StepInputs) -> str:
    rows, _, height, width = example.latents.shape
    return f"latents of {width}×{height} in batches of {rows}"


def _gain(size: Size, before: float, times: Mapping[int, float]) -> str:
    """Compare the seconds of a step of the largest batch with those `before`."""
    rows = max(times)
    return (
        f"{rows} rows of {size[0]}×{size[1]} take {1e3 * times[rows]:.1f} ms a step, not {1e3 * before:.1f}"
        f" ({before / times[rows]:.2f} times as fast)"
    )


def _check(compiled: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    error = float((compiled - expected).norm() / expected.norm())
    if not error <= TOLERANCE:
        raise RuntimeError(f"the compiled {name} is off by {error:.0%} at {tuple(compiled.shape)}")
