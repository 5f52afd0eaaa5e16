"""Pictures of the engine beside those of diffusers' own pipeline, and mistakes that must tell them apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.sampling_contract import SamplingContract
from tests.worker.engine.recorded_graphs import RecordedGraphs
from tests.worker.tasks import image_task
from worker.engine.engine import Engine
from worker.engine.outcomes import Picture
from worker.families.base import Family
from worker.families.prompt_embeddings import PromptEmbedding, stacked
from worker.families.shared.rotary import rotated
from worker.generate import generate
from worker.model_folder.contract import own_contract, resized
from worker.model_folder.loading import LoadedModel, served

PROMPTS = [
    "sun",
    "a sad big dog on a red mat",
    "a small blue face with a wide green hat, beside a heart of gold under a bright yellow sun, at the old sea",
]
SEEDS = [5, 6, 7]

FLOATS = 5e-4
"""The largest difference of colours between 0 and 1 that rounding explains: up to 4e-5 with the vector instructions of
one processor, 7e-5 and 1.6e-4 with those of others. The smallest mistake in the tests makes 3.4e-3."""
APART = 20 / 255
"""What pictures of different prompts differ by at least, so that a comparison means something."""

Mistake = Callable[[pytest.MonkeyPatch, LoadedModel], LoadedModel | None]
"""Spoils the family's code, or returns another model."""


def contract_of(pipeline: Any, steps: int, own_sizes: Sequence[tuple[int, int]], **changes: Any) -> SamplingContract:
    """The contract that a folder without one has, with `changes`."""
    own = own_contract(pipeline, steps, sizes=own_sizes)
    return SamplingContract.model_validate(own.model_dump() | changes)


def model_of(pipeline: Any, contract: SamplingContract) -> LoadedModel:
    return served("tiny", "ab", contract, pipeline)


def ours(
    model: LoadedModel,
    size: tuple[int, int],
    *,
    prompts: Sequence[str] = PROMPTS,
    seeds: Sequence[int] = SEEDS,
    staggered: bool = False,
    **changes: Any,
) -> np.ndarray:
    """The engine's pictures before they are rounded: float32 [N, height, width, 3]. With `staggered`, a row joins at
    each step."""
    engine, decode, decoded = Engine(model, 4), model.network.decode, []

    def recorded(latents: torch.Tensor) -> torch.Tensor:
        decoded.append(decode(latents))
        return decoded[-1]

    pairs = zip(prompts, seeds, strict=True)
    waiting = {str(i): image_task(p, s, height=size[0], width=size[1], **changes) for i, (p, s) in enumerate(pairs)}
    found: dict[str, np.ndarray] = {}
    model.network.decode = recorded  # type: ignore[method-assign]
    try:
        while waiting or engine.busy:
            joining = {key: waiting.pop(key) for key in list(waiting)[: 1 if staggered else None]}
            engine.add(joining)
            outcomes = engine.step()
            for outcome, image in zip(outcomes, decoded[-1] if outcomes else (), strict=False):
                assert isinstance(outcome, Picture), outcome
                found[outcome.key] = (image / 2 + 0.5).clamp(0, 1).movedim(0, 2).numpy()
    finally:
        model.network.decode = decode  # type: ignore[method-assign]
    return np.stack([found[str(i)] for i in range(len(prompts))])


def theirs(pipeline: Any, size: tuple[int, int], **options: Any) -> np.ndarray:
    """diffusers' pictures of PROMPTS in one batch, each from the noise of a generator of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    # A list of its own: one pipeline writes into it.
    given = {"height": size[0], "width": size[1], "output_type": "np"} | options
    images = pipeline(prompt=list(PROMPTS), generator=generators, **given).images
    assert min(np.abs(images[a] - images[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > APART
    return images


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference of a colour, in levels of 255."""
    return float(np.abs(first - second).max() * 255)


def agrees(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether floats differ by rounding alone, and colours by one level at most."""
    colours = [(each * 255).round() for each in (first, second)]
    return apart(first, second) <= FLOATS * 255 and float(np.abs(colours[0] - colours[1]).max()) <= 1


def check_strict(model: LoadedModel, size: tuple[int, int]) -> None:
    """Three strict pictures in one batch, or one at a time: bit for bit the same."""
    together = ours(model, size, mode="strict")
    for number, image in enumerate(together):
        only = slice(number, number + 1)
        alone = ours(model, size, prompts=PROMPTS[only], seeds=SEEDS[only], mode="strict")
        assert np.array_equal(alone[0], image)


def check_graphs(model: LoadedModel, size: tuple[int, int], lengths: int = 1) -> None:
    """A step is captured for each batch size and each of so many lengths of prompts, and every batch is replayed."""
    recorded, missed = RecordedGraphs(), set()
    pipeline = model.network.pipeline
    model = model_of(pipeline, resized(model.contract, [size], pipeline))
    engine = Engine(model, 2, recorded)
    engine.warm_up()
    assert len(recorded.captured) == 2 * lengths
    engine.runner.measure = lambda measured: missed.add(measured.graph_miss)
    replayed = generate(engine, PROMPTS, SEEDS).astype(int)
    assert missed == {None}
    assert np.abs(replayed - generate(Engine(model, 2), PROMPTS, SEEDS)).max() <= 1


class _Operators(TorchDispatchMode):
    """Collects the names of all operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


def check_operators(model: LoadedModel, size: tuple[int, int]) -> None:
    """No operator of a step reads the host or makes it wait, but for tables that the first step leaves behind."""
    network, contract = model.network, model.contract
    latents = torch.zeros(1, *network.latent_shape(*size))
    embeddings = stacked(network.encode(["sun"]), network.text_lengths[-1] if network.text_lengths else 0)
    with torch.inference_mode():
        network.predict(latents, model.table.timesteps[:1], embeddings)
        with _Operators() as operators:
            network.predict(latents, model.table.timesteps[:1], embeddings)
    waits = {"aten::_local_scalar_dense", "aten::lift_fresh", "aten::nonzero", "aten::masked_select"}
    assert operators.names & waits == set(), contract.family
    assert "aten::mul.Tensor" in operators.names


# Mistakes


def told(change: Callable[..., tuple[torch.Tensor, torch.Tensor, PromptEmbedding, Any]]) -> Mistake:
    """Tell the denoiser something else: `change` maps latents, timesteps, embeddings and size to others."""

    def spoil(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
        kind = type(model.network.family)
        right = kind.predict
        monkeypatch.setattr(kind, "predict", lambda self, network, *given: right(self, network, *change(*given)))

    return spoil


def answered(change: Callable[[torch.Tensor], torch.Tensor]) -> Mistake:
    """Change the denoiser's answer."""

    def spoil(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
        kind = type(model.network.family)
        right = kind.predict
        monkeypatch.setattr(kind, "predict", lambda self, *given: change(right(self, *given)))

    return spoil


def transposed() -> Mistake:
    """Exchange rows and columns around the denoiser."""

    def spoil(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
        kind = type(model.network.family)
        right = kind.predict

        def predict(self: Family, network: Any, latents: torch.Tensor, *given: Any) -> torch.Tensor:
            return right(self, network, latents.transpose(2, 3), *given).transpose(2, 3)

        monkeypatch.setattr(kind, "predict", predict)

    return spoil


def decoded(change: Callable[[torch.Tensor], torch.Tensor]) -> Mistake:
    """Change the latents before they are decoded."""

    def spoil(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
        kind = type(model.network.family)
        right = kind.decode
        monkeypatch.setattr(kind, "decode", lambda self, vae, latents: right(self, vae, change(latents)))

    return spoil


def with_tokens(change: Callable[[torch.Tensor], torch.Tensor]) -> Mistake:
    """Change the tokens of every prompt's embedding."""
    return encoded(lambda embedding: replace(embedding, tokens=change(embedding.tokens)))


def without_pooled() -> Mistake:
    """Put zeros in the place of the pooled embedding."""
    return encoded(lambda e: e if e.pooled is None else replace(e, pooled=torch.zeros_like(e.pooled)))


def encoded(change: Callable[[PromptEmbedding], PromptEmbedding]) -> Mistake:
    """Change every prompt's embedding."""

    def spoil(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
        kind = type(model.network.family)
        right = kind.encode
        monkeypatch.setattr(kind, "encode", lambda self, *given: [change(each) for each in right(self, *given)])

    return spoil


def contracted(**changes: Any) -> Mistake:
    """Serve by another contract; a callable is given the right value."""

    def spoil(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> LoadedModel:
        right = model.contract.model_dump()
        values = {name: value(right[name]) if callable(value) else value for name, value in changes.items()}
        return model_of(model.network.pipeline, SamplingContract.model_validate(right | values))

    return spoil


def replaced(target: Any, name: str, other: Any) -> Mistake:
    """Put `other` in the place of what `target` calls `name`."""

    def spoil(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
        monkeypatch.setattr(target, name, other)

    return spoil


def all_attended(length: int) -> Mistake:
    """Pad every prompt to `length`, and attend to the padding."""

    def whole(embedding: PromptEmbedding) -> PromptEmbedding:
        padded = embedding.resized(length)
        return replace(padded, mask=torch.ones(length, dtype=torch.bool))

    return encoded(whole)


def turned_back(x: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
    """The rotary embedding by negative angles."""
    return rotated(x, rotary * torch.tensor([1.0, -1.0]))


def shifted(sigmas: list[float]) -> list[float]:
    """The same noise levels, but for a little."""
    return [sigma**1.02 for sigma in sigmas]


def later(timesteps: torch.Tensor) -> torch.Tensor:
    """Timesteps that are 2 % off."""
    return timesteps * 0.98
