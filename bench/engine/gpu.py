"""Stable Diffusion 3.5 Medium's architecture with random weights on a CUDA device: `make bench-gpu`.

Milliseconds of one denoising step, by the engine's own step path: eager, from a CUDA graph, compiled, and compiled in a
graph; and images a second of a 4-step student against a teacher of 30 guided steps. Speed does not depend on what the
weights are. Text encoders are left out: prompts are random embeddings of the right shape. Where there is no CUDA
device, it says so and measures nothing.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from bench import results_file
from jobs.models import PromptTokens
from jobs.sampling_contract import SamplingContract
from worker.engine.cuda_graphs import CudaGraphs
from worker.engine.engine import Engine
from worker.engine.model_runner import Executor
from worker.engine.step_graphs import Graph
from worker.engine_process.compile_thread import compile_shape
from worker.families.network import Network
from worker.families.prompt_embeddings import PromptEmbedding
from worker.families.registry import STABLE_DIFFUSION_3
from worker.generate import generate
from worker.model_folder.loading import LoadedModel
from worker.sampling import step_table as sampler

NAME = "gpu"
CONFIG = Path("distill/configs/architectures/stable-diffusion-3.5-medium/transformer/config.json")
VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
TOKENS = 77 + 256
"""CLIP's and T5's, at the length that diffusers takes by default."""

NewGraph = Callable[[], Graph] | None
PATHS = ("eager", "graph", "compiled", "compiled, graph")
TEACHER_STEPS, GUIDANCE = 30, 3.5


@dataclass(frozen=True)
class Architecture:
    """Configurations of a transformer and a decoder; weights are drawn at random."""

    transformer: dict[str, Any]
    vae: dict[str, Any]
    tokens: int = TOKENS


class RandomNetwork(Network):
    """The networks of `architecture` in `dtype` on `device`, with random embeddings for prompts."""

    def __init__(self, architecture: Architecture, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        with device:
            transformer = SD3Transformer2DModel(**architecture.transformer).to(dtype).eval().requires_grad_(False)
            vae = AutoencoderKL(**architecture.vae).to(dtype).eval().requires_grad_(False)
        scale = 2 ** (len(architecture.vae["block_out_channels"]) - 1)
        parts = SimpleNamespace(transformer=transformer, vae=vae, vae_scale_factor=scale)
        super().__init__(STABLE_DIFFUSION_3, parts, architecture.tokens)
        self._shape = (architecture.tokens, transformer.config.joint_attention_dim)
        self._pooled = transformer.config.pooled_projection_dim

    def encode(self, prompts: Sequence[str]) -> list[PromptEmbedding]:
        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=self.device, dtype=self.dtype)

        return [PromptEmbedding(drawn(*self._shape), drawn(self._pooled)) for _ in prompts]

    def prompt_tokens(self, prompt: str) -> PromptTokens:
        return PromptTokens(total=self._shape[0], read=self._shape[0])


def served(network: Network, side: int, steps: int, guidance: float) -> LoadedModel:
    """`network` sampled in `steps` equal steps at one square size."""
    contract = SamplingContract(
        method="none",
        family="sd3",
        prediction="flow",
        steps=steps,
        sigmas=[1 - step / steps for step in range(steps)] + [0.0],
        guidance_scale=guidance,
        sizes=[(side, side)],
    )
    return LoadedModel("random", "0" * 64, contract, sampler.from_contract(contract), network)


def measure(
    network: Network,
    sides: Sequence[int],
    max_batch: int,
    new_graph: NewGraph,
    paths: Sequence[str] = PATHS,
    repeats: int = 10,
) -> dict[str, Any]:
    """Steps of every size and bucket on each of `paths`, then whole images; buckets that do not fit are left out."""
    steps = [row for side in sides for row in _steps(network, side, max_batch, new_graph, paths, repeats)]
    images = [_student_and_teacher(network, side, max_batch, new_graph) for side in sides]
    return {"paths": list(paths), "steps": steps, "images": images}


def _steps(
    network: Network, side: int, max_batch: int, new_graph: NewGraph, paths: Sequence[str], repeats: int
) -> list[dict[str, Any]]:
    model = served(network, side, 4, 1.0)
    engine = Engine(model, max_batch)
    made = {
        "eager": engine.runner.eager,
        "graph": Executor(model, network, new_graph),
        "compiled": engine.runner.new_compiled(),
        "compiled, graph": Engine(model, max_batch, new_graph).runner.new_compiled(),
    }
    rows = []
    for example in engine.rehearsal.examples():  # largest first, as graphs of one pool need it
        taken: dict[str, float] = {}
        for name in paths:
            try:
                if name.startswith("compiled"):
                    compile_shape(made[name], engine.runner.eager, example)
                if name.endswith("graph"):
                    made[name].capture(example)
                taken[name] = round(_step_ms(made[name], example, repeats), 3)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        rows.append({"size": side, "bucket": len(example.latents), "step_ms": taken})
    return rows[::-1]


@torch.inference_mode()
def _step_ms(path: Executor, example: Any, repeats: int) -> float:
    """Median of `repeats`, after two that are not counted."""
    return 1000 * median([_seconds(lambda: path.step(example)) for _ in range(repeats + 2)][2:])


def _student_and_teacher(network: Network, side: int, max_batch: int, new_graph: NewGraph) -> dict[str, Any]:
    """Images a second of both in full batches, with decoding, uncompiled."""
    rates = {}
    for name, steps, guidance in (("student", 4, 1.0), ("teacher", TEACHER_STEPS, GUIDANCE)):
        engine = Engine(served(network, side, steps, guidance), max_batch, new_graph)
        engine.warm_up()
        batch = max(engine.step_times[side, side])
        prompts, seeds = [f"{name} {row}" for row in range(batch)], range(batch)
        rates[name] = batch / min(_seconds(lambda e=engine, p=prompts, s=seeds: generate(e, p, s)) for _ in range(2))  # type: ignore[misc]
    return {
        "size": side,
        "student_images_per_s": round(rates["student"], 3),
        "teacher_images_per_s": round(rates["teacher"], 3),
        "student_over_teacher": round(rates["student"] / rates["teacher"], 2),
    }


def _seconds(work: Callable[[], object]) -> float:
    """Until the device is done."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    began = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine.gpu", description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--max-batch", type=int, default=8)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        reason = "torch sees no CUDA device here"
        results_file.write(NAME, {"ran": False, "reason": reason})
        print(f"bench-gpu: not run: {reason}")
        return
    device = torch.device("cuda")
    transformer = {key: value for key, value in json.loads(CONFIG.read_text()).items() if not key.startswith("_")}
    network = RandomNetwork(Architecture(transformer, VAE), device, torch.bfloat16)
    figures = measure(network, arguments.sides, arguments.max_batch, CudaGraphs(device))
    results_file.write(NAME, {"ran": True, **figures})
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
