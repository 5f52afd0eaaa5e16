"""Compile the networks beside the serving engine, and switch it over when every shape is ready."""

import logging
import threading
import time

import torch

from worker.engine.denoising_step import StepInputs
from worker.engine.engine import Engine
from worker.engine.model_runner import Executor
from worker.engine_process.device_thread import DeviceThread

log = logging.getLogger(__name__)

TOLERANCE = 0.05
"""Largest relative error (root mean square) of a compiled prediction: bfloat16 gives about 0.01."""

RECOMPILE_LIMIT = 4096
"""torch's default of 8 guards against an endless number of shapes; here their number is known."""


class CompileThread(threading.Thread):
    """Compiles a twin of the engine's networks on the same weights, then switches the engine to it between two steps.

    The engine runs eagerly until then, and for good when the compiler fails or its code is wrong. Afterwards this
    process compiles nothing more: a batch of a new shape runs eagerly.
    """

    def __init__(self, device: DeviceThread) -> None:
        super().__init__(name="compile", daemon=True)
        self._device = device

    def compile(self, engine: Engine) -> None:
        """Start compiling for an `engine` that the device thread owns."""
        self._engine = engine
        self.start()

    def run(self) -> None:
        torch.set_flush_denormal(True)
        # Each shape is compiled for itself, for each of the alike blocks that differs a little from the others.
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = RECOMPILE_LIMIT
        started = time.monotonic()
        try:
            self._switch_over()
        except Exception:
            log.exception("compiling failed: serving on without")
        else:
            log.info("compiled in %.0f s: now serving the compiled networks", time.monotonic() - started)

    def _switch_over(self) -> None:
        runner = self._engine.runner
        compiled = runner.new_compiled()
        for example in self._device.call(self._engine.examples).result():
            compile_shape(compiled, runner.eager, example)
            self._device.call(compiled.capture, example).result()
        torch.compiler.set_stance("eager_on_recompile")
        self._device.call(self._engine.switch, compiled).result()
        for size, times in self._engine.step_times.items():
            for bucket in tuple(times):  # one by one, so that images that wait run in between
                self._device.call(self._engine.measure_step, size, bucket).result()


@torch.inference_mode()
def compile_shape(compiled: Executor, eager: Executor, example: StepInputs) -> None:
    """Run step and decoder at the shape of `example`, which compiles them.

    Raises RuntimeError when the results are not those of `eager`.
    """
    found, expected = compiled.step(example), eager.step(example)
    _check(found.pred_x0 - example.latents, expected.pred_x0 - example.latents, "denoiser")
    _check(compiled.decode(expected.pred_x0), eager.decode(expected.pred_x0), "decoder")


def _check(compiled: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    error = float((compiled - expected).norm() / expected.norm())
    if not error <= TOLERANCE:
        raise RuntimeError(f"the compiled {name} is off by {error:.0%} at {tuple(compiled.shape)}")
