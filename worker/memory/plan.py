"""The memory that a model takes of a device, and the batches that fit."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from worker.engine.denoising_step import DenoisingStep, Guidance, StepInputs
from worker.families.base import Size
from worker.families.prompt_embeddings import PromptEmbedding
from worker.memory.counting import peak_bytes, stored_bytes
from worker.model_folder.loading import LoadedModel

SHAPES_ONLY = torch.device("meta")
"""The device of tensors without memory: a model that was loaded on it is counted as it would be on a GPU."""

MOST_ROWS = 64
RESERVE = 2**30
"""Bytes for what is not counted: CUDA's context, the workspaces of its libraries, text encoders at work, kept
embeddings, and memory that lies in pieces."""


@dataclass(frozen=True)
class Batch:
    """Bytes that a step, and the decoding, of `rows` images of `size` (height, width) hold beside the weights."""

    size: Size
    rows: int
    step: int
    decode: int


@dataclass(frozen=True)
class Fit:
    """The largest batch of a step that fits, and the images that can be decoded at once beside its memory."""

    size: Size
    rows: int
    decoded: int


def weights(model: LoadedModel) -> dict[str, int]:
    """Return the bytes of the weights that lie on the device, by part; text encoders together."""
    network = model.network
    encoders = [
        part
        for name in network.family.text_components
        if isinstance(part := getattr(network.pipeline, name), torch.nn.Module) and part.device == network.device
    ]
    return {
        "text encoders": stored_bytes(*encoders),
        "denoiser": stored_bytes(network.denoiser),
        "decoder": stored_bytes(network.vae),
    }


def batch(model: LoadedModel, size: Size, rows: int) -> Batch:
    """Count a step and the decoding of `rows` images, without guidance or with the model's own."""
    network, device = model.network, model.network.device
    table = model.size_tables.get(size, model.table)
    draws, table = table.noise_draws, table.to(device)
    height, width = size
    shape = (rows, *network.latent_shape(height, width))

    def step() -> object:
        embeddings = empty_embeddings(model, rows)
        guided = model.contract.guidance_scale > 1
        guidance = Guidance(empty_embeddings(model, rows), torch.empty(rows, device=device)) if guided else None
        latents = torch.empty(shape, device=device)
        index = torch.zeros(rows, dtype=torch.int64, device=device)
        noise = torch.empty(shape, device=device) if draws > 1 else None
        run = DenoisingStep(network.predict, table, network.guide)
        return run(StepInputs(latents, index, embeddings, noise, guidance))

    return Batch(size, rows, peak_bytes(step), peak_bytes(lambda: network.decode(torch.empty(shape, device=device))))


def batches(model: LoadedModel, size: Size, memory: int) -> Iterator[Batch]:
    """Yield batches of 1, 2, 4, ... rows up to the first whose step does not fit into `memory` bytes, or MOST_ROWS."""
    rows, left = 1, memory - RESERVE - sum(weights(model).values())
    while rows <= MOST_ROWS:
        counted = batch(model, size, rows)
        yield counted
        if counted.step > left:
            return
        rows *= 2


def fit(counted: list[Batch], weights_bytes: int, memory: int) -> Fit | None:
    """Return what fits of the batches of one size, None when not even a single image does.

    The memory of a step stays taken while the images before it are decoded: graphs hold it.
    """
    left = memory - RESERVE - weights_bytes
    for large in reversed(counted):
        for small in reversed([each for each in counted if each.rows <= large.rows]):
            if large.step + small.decode <= left:
                return Fit(large.size, large.rows, small.rows)
    return None


def empty_embeddings(model: LoadedModel, rows: int) -> PromptEmbedding:
    """Return embeddings of `rows` prompts on the model's device, with the shapes of the longest prompts and values that
    mean nothing."""
    network = model.network
    length = model.contract.max_sequence_length or network.family.default_sequence_length(network.pipeline)
    with torch.device(network.device):
        _, embeddings = network.family.empty_inputs(network.denoiser.config, rows, length)
    return embeddings.to(device=network.device, dtype=network.dtype)
