"""Start the engine by the settings, and make the model card that announces it."""

import logging
import os
from collections.abc import Callable
from typing import Literal

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from jobs.models import EffectiveSettings, ModelCard
from jobs.settings import WorkerSettings
from jobs.version import fourstep_version
from worker.device import accelerator
from worker.engine.cuda_graphs import CudaGraphs
from worker.engine.engine import Engine
from worker.engine.step_times.batch_sizes import STRICT
from worker.errors import StartFailedError
from worker.model_folder.loading import LoadedModel, load
from worker.model_folder.safety_model import SafetyModel

log = logging.getLogger(__name__)

Compiler = Literal["inductor", "openvino"]
"""torch.compile's own code generator, or OpenVINO, for a CPU."""

TRYING = "larger ones are being tried"
"""The reason for the largest batch while the batch sizes, and on a CPU the runtime, are not those to stay."""


def start_engine(settings: WorkerSettings, load_model: Callable[..., LoadedModel] = load) -> Engine:
    """Load the model and run every stage once, eagerly. Raises FolderRefusedError, StartFailedError or RuntimeError."""
    quiet_libraries()
    if settings.compile_cache is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(settings.compile_cache)
    log.info("reading the weights of %s", settings.model)
    model = load_model(
        settings.model,
        settings.device,
        settings.dtype,
        settings.steps,
        settings.guidance_scale,
        settings.sizes,
        settings.text_encoders,
        settings.quantize,
    )
    accelerator.make_current(model.network.device)
    safety = None
    if settings.safety_model is not None:  # before the warm-up, which takes what memory is left
        device = model.network.device
        safety = SafetyModel(settings.safety_model, settings.safety_labels, settings.safety_threshold, device)
    graphs = _replays_graphs(settings, model.network.device)
    max_batch = STRICT if settings.max_batch == "auto" else settings.max_batch
    engine = Engine(model, max_batch, CudaGraphs(model.network.device) if graphs else None)
    log.info("warming up %s on %s", model.name, model.network.device)
    engine.warm_up()
    if safety is not None:
        engine.judge = safety.verdicts
    return engine


def model_card(engine: Engine, settings: WorkerSettings, chosen: str | None = None) -> ModelCard:
    """Return the model card that the worker announces; its `settings` are the effective values. What is to be compiled
    counts as compiled, until that fails.

    `chosen` is the reason for the largest batch, None as long as larger ones are being tried.
    """
    model = engine.model
    compiler = None if engine.compiling_failed else compiler_for(settings, model.network.device)
    return ModelCard(
        name=model.name,
        sha256=model.sha256,
        family=model.contract.family,
        method=model.contract.method,
        steps=model.contract.steps,
        evaluations=model.contract.evaluations,
        guidance_scale=model.contract.guidance_scale,
        negative_prompt=model.contract.negative_prompt if model.contract.guidance_scale > 1 else None,
        noise_levels=model.table.noise_levels if model.network.takes_pictures else [],
        size_noise_levels=_size_noise_levels(model),
        sizes=model.contract.sizes,
        max_sequence_length=model.contract.max_sequence_length,
        version=fourstep_version(),
        examples=model.contract.examples,
        settings=EffectiveSettings(
            device=str(model.network.device),
            dtype=str(model.network.dtype).removeprefix("torch."),
            text_encoders=settings.text_encoders,
            quantize=settings.quantize,
            max_batch=max(engine.runner.largest_batch.values()),
            max_batch_reason=(chosen or TRYING) if settings.max_batch == "auto" else "as set",
            strict_batch=max(engine.runner.strict_batch.values()),
            runtime="openvino" if compiler == "openvino" else "torch",
            compile=compiler == "inductor",
            cuda_graphs=engine.runner.eager.has_graphs,
            threads=torch.get_num_threads(),
            lease_s=settings.lease_s,
            result_ttl_s=settings.result_ttl_s,
            embed_recipe=settings.embed_recipe,
        ),
    )


def _size_noise_levels(model: LoadedModel) -> list[list[float]] | None:
    if not model.size_tables or not model.network.takes_pictures:
        return None
    return [model.size_tables.get(size, model.table).noise_levels for size in model.contract.sizes]


def compiler_for(settings: WorkerSettings, device: torch.device) -> Compiler | None:
    """Return what is to compile the networks, if anything.

    With "auto" that is torch.compile on a CUDA device and, if it is to run them, OpenVINO on a CPU. OpenVINO does not
    read the weights of eight bits that torchao makes."""
    if settings.compile is True or (settings.compile == "auto" and device.type == "cuda"):
        return "inductor"
    plain = settings.quantize is None and settings.text_encoders != "int8"
    return "openvino" if device.type == "cpu" and settings.cpu_runtime == "openvino" and plain else None


def _replays_graphs(settings: WorkerSettings, device: torch.device) -> bool:
    if settings.cuda_graphs and device.type != "cuda":
        raise StartFailedError(
            f"FOURSTEP_CUDA_GRAPHS: true needs a CUDA device, and the model runs on {device}; leave it unset"
        )
    return device.type == "cuda" if settings.cuda_graphs is None else settings.cuda_graphs


def quiet_libraries() -> None:
    """Turn off progress bars and warnings: one of the warnings quotes prompts, which must not be logged."""
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
