"""The parts of the benchmark that run networks: steps, decoding, graphs, attention, compiled code, bits, text."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5EncoderModel

from bench.gpu.device import Device
from bench.gpu.figures import Figure, Figures
from bench.gpu.models import Models, compiled_blocks, inputs_of, step_of
from worker.engine.denoising_step import StepInputs
from worker.engine.step_graphs import Graph, Step, StepGraphs
from worker.engine_process.compile_thread import RECOMPILE_LIMIT
from worker.model_folder.placing import quantize_weights
from worker.testing import published_pipelines, tiny_pipelines
from worker.testing.real_size_pipelines import T5_TOKENS

ROWS = (1, 2, 4, 8)
STUDENT_STEPS, TEACHER_STEPS = 4, 30
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


class Networks:
    """Measures on `device`, and adds what it finds to `figures`; `tiny` networks try that all of it runs."""

    def __init__(self, device: Device, figures: Figures, tiny: bool) -> None:
        self._device, self._figures, self._tiny = device, figures, tiny
        self._models = Models(device, tiny)
        self._large = self._models.sides[-1]

    def facts(self) -> None:
        self._figures.add("facts", self._device.facts)
        self._figures.add("gpu tests", self._tests)

    def eager_steps(self) -> None:
        for side in reversed(self._models.sides):
            for rows in ROWS:
                self._add("step", partial(self._step, "sd35m", side, rows), "sd35m", side, rows, "eager")

    def decoding(self) -> None:
        for layout in ("channels-last", "contiguous"):
            for rows in (1, 4, 8):
                for at_once in sorted({rows, 1}, reverse=True):
                    how = f"{layout}, {'whole' if at_once == rows else 'one by one'}"
                    call = partial(self._decode, layout, rows, at_once)
                    self._add("decode", call, "sd35m", self._large, rows, how)

    def graphs(self) -> None:
        for side in reversed(self._models.sides):
            for rows in reversed(ROWS):
                self._add("step", partial(self._graph, side, rows), "sd35m", side, rows, "graph")
        for shared in (True, False):
            how = "one stream" if shared else "a stream each"
            self._add("graphs' memory", partial(self._reserved, shared), "sd35m", self._large, 8, how)

    def attention(self) -> None:
        for name, backend in BACKENDS.items():
            for rows in (1, 8):
                call = partial(self._step, "sd35m", self._large, rows, backend)
                self._add("attention", call, "sd35m", self._large, rows, name)

    def compiled(self) -> None:
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = RECOMPILE_LIMIT
        for rows in (8, 1):
            self._add("compiled", partial(self._compiled, rows), "sd35m", self._large, rows, "blocks")

    def strict_bits(self) -> None:
        self._add("bits", self._bits, "sd35m", self._large, 8, "slots and neighbours")

    def student_and_teacher(self) -> None:
        for side in reversed(self._models.sides):
            self._add("images", partial(self._images, side), "sd35m", side, 8, "student, teacher")

    def quantized(self) -> None:
        for kind in ("int8", "fp8"):
            call = partial(self._step, "sd35m", self._large, 8, quantize=kind)
            self._add("step", call, "sd35m", self._large, 8, kind)

    def sdxl(self) -> None:
        for rows in (1, 8):
            self._add("step", partial(self._step, "sdxl", self._large, rows), "sdxl", self._large, rows, "eager")

    def text(self) -> None:
        for how in ("bfloat16", "int8"):
            for prompts in (1, 8):
                self._add("text", partial(self._encode, prompts, how), "t5-xxl", 256, prompts, how)

    def parts(self) -> Iterator[Callable[[], None]]:
        """All of them, in the order in which they are worth most."""
        yield from (self.facts, self.eager_steps, self.decoding, self.graphs, self.attention, self.compiled)
        yield from (self.strict_bits, self.student_and_teacher, self.sdxl, self.text, self.quantized)

    def _add(self, name: str, call: Callable[[], Figure], model: str, size: int, rows: int, how: str) -> None:
        self._figures.add(name, call, model=model, size=size, rows=rows, how=how)

    def _tests(self) -> Figure:
        """The end of what pytest says of the tests marked gpu."""
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/worker/engine"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return {"code": run.returncode, "says": (run.stdout.strip() or run.stderr.strip()).splitlines()[-1:]}

    def _step(self, name: str, side: int, rows: int, backend: SDPBackend | None = None, quantize: Any = None) -> Figure:
        model = self._models.get(name, quantize)
        step, inputs = step_of(model), inputs_of(model, side, rows)

        def run() -> object:
            if backend is None:
                return step(inputs)
            with sdpa_kernel(backend):
                return step(inputs)

        return {"ms": self._device.milliseconds(run), "peak_mib": self._device.peak_mib(run)}

    def _decode(self, layout: str, rows: int, at_once: int) -> Figure:
        model = self._models.get("sd35m")
        memory_format = torch.channels_last if layout == "channels-last" else torch.contiguous_format
        model.network.vae.to(memory_format=memory_format)
        latents = inputs_of(model, self._large, rows).latents

        def run() -> object:
            return [model.network.decode(part) for part in latents.split(at_once)]

        return {"ms": self._device.milliseconds(run, 5), "peak_mib": self._device.peak_mib(run)}

    @torch.inference_mode()
    def _graph(self, side: int, rows: int) -> Figure:
        model = self._models.get("sd35m")
        step, inputs = step_of(model), inputs_of(model, side, rows)
        replayed = _captured(step, self._device.graphs(), inputs)
        found, expected = replayed(inputs).latents, step(inputs).latents
        same = {"same_bits": torch.equal(found, expected), "largest_error": float((found - expected).abs().max())}
        return {"ms": self._device.milliseconds(lambda: replayed(inputs)), **same}

    @torch.inference_mode()
    def _reserved(self, one_stream: bool) -> Figure:
        """Memory that graphs of all batches keep, beside what was there before."""
        model = self._models.get("sd35m")
        step, before = step_of(model), self._device.reserved_mib()
        new_graph, kept = self._device.graphs(), []
        for rows in reversed(ROWS):
            inputs = inputs_of(model, self._large, rows)
            kept.append(_captured(step, new_graph if one_stream else self._device.graphs(), inputs))
        return {"reserved_mib": round(self._device.reserved_mib() - before, 1)}

    @torch.inference_mode()
    def _compiled(self, rows: int) -> Figure:
        model = self._models.get("sd35m")
        inputs = inputs_of(model, self._large, rows)
        step = step_of(model, compiled_blocks(model, "eager" if self._tiny else "inductor"))
        expected = step_of(model)(inputs).pred_x0 - inputs.latents
        began = time.perf_counter()
        error = step(inputs).pred_x0 - inputs.latents - expected
        self._device.wait()
        compiling = round(time.perf_counter() - began, 1)
        found = {"compile_s": compiling, "relative_error": float(error.norm() / expected.norm())}
        found["ms"] = self._device.milliseconds(lambda: step(inputs))
        replayed = _captured(step, self._device.graphs(), inputs)
        return found | {"graph_ms": self._device.milliseconds(lambda: replayed(inputs))}

    @torch.inference_mode()
    def _bits(self) -> Figure:
        """Compare the bits of a row in every slot, with other neighbours, and alone."""
        model = self._models.get("sd35m")
        step, inputs = step_of(model), inputs_of(model, self._large, 8)
        whole = step(inputs).latents
        turned = step(inputs.rows(torch.arange(8, device=whole.device).roll(3))).latents  # type: ignore[arg-type]
        others = torch.tensor([0, 7, 7, 7, 7, 7, 7, 7], device=whole.device)
        beside = step(inputs.rows(others)).latents  # type: ignore[arg-type]
        alone = step(inputs.rows(slice(0, 1))).latents
        return {
            "in_every_slot": torch.equal(turned, whole.roll(3, 0)),
            "beside_others": torch.equal(beside[0], whole[0]),
            "alone": torch.equal(alone[0], whole[0]),
        }

    def _images(self, side: int) -> Figure:
        """Images a second of 8 at once: 4 steps against 30 guided ones, of which one is timed, each with decoding."""
        model = self._models.get("sd35m")
        model.network.vae.to(memory_format=model.network.family.vae_memory_format)
        step, inputs, guided = step_of(model), inputs_of(model, side, 8), inputs_of(model, side, 8, guided=True)
        decoding = self._device.milliseconds(lambda: [model.network.decode(row) for row in inputs.latents.split(1)], 3)
        of_student = STUDENT_STEPS * self._device.milliseconds(lambda: step(inputs), 5) + decoding
        of_teacher = TEACHER_STEPS * self._device.milliseconds(lambda: step(guided), 3) + decoding
        return {
            "student_per_s": round(8000 / of_student, 3),
            "teacher_per_s": round(8000 / of_teacher, 3),
            "student_over_teacher": round(of_teacher / of_student, 2),
        }

    def _encode(self, prompts: int, how: str) -> Figure:
        self._models = Models(self._device, self._tiny)  # frees the one that was made
        self._device.free()
        if self._tiny:
            encoder, tokens = tiny_pipelines.build().text_encoder_3, tiny_pipelines.TOKENS
        else:
            with self._device.torch:
                encoder = T5EncoderModel(published_pipelines.t5_xxl()).to(torch.bfloat16).eval()
            tokens = T5_TOKENS
        if how == "int8":
            quantize_weights([encoder], "int8", self._device.torch)
        ids = torch.ones(prompts, tokens, dtype=torch.int64, device=self._device.torch)

        def run() -> object:
            return encoder(ids)[0]

        return {"ms": self._device.milliseconds(run, 5), "peak_mib": self._device.peak_mib(run)}


def _captured(step: Step, new_graph: Callable[[], Graph], inputs: StepInputs) -> StepGraphs:
    """The graph of a step. Raises RuntimeError where it cannot be captured: what ran without would be timed."""
    graphs = StepGraphs(step, new_graph)
    graphs.capture(inputs)
    if miss := graphs.miss(inputs):
        raise RuntimeError(f"the step was not captured: {miss}")
    return graphs
