"""The memory of prompts' embeddings: kept by their bytes, counted in the plan, and given up where it is short."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.worker.gpu.stand_in_device import OUT_OF_MEMORY, StandInDevice
from worker.engine.engine import Engine
from worker.engine.row_starts.prompt_cache import PromptCache
from worker.families.prompt_embeddings import PromptEmbedding
from worker.model_folder.loading import LoadedModel


def _embedding(prompt: str) -> PromptEmbedding:
    return PromptEmbedding(torch.full((4, 8), float(len(prompt))), torch.zeros(8))


def _cache(encoded: list[str], **bounds: int) -> PromptCache:
    def encode(prompts: Any) -> list[PromptEmbedding]:
        encoded.extend(prompts)
        return [_embedding(prompt) for prompt in prompts]

    return PromptCache(encode, 4, **bounds)


@pytest.mark.parametrize("found_by", OUT_OF_MEMORY)
def test_prompts_that_do_not_fit_along_wait_for_their_turn_whoever_finds_that(found_by: str) -> None:
    def encode(prompts: Sequence[str]) -> list[PromptEmbedding]:
        if len(prompts) > 1:
            raise OUT_OF_MEMORY[found_by]("out of memory")
        return [_embedding(prompt) for prompt in prompts]

    (embedding,) = PromptCache(encode, 4).get(["a"], strict=False, waiting=["b"])
    assert torch.equal(embedding.tokens, _embedding("a").tokens)


def test_g_embeddings_are_kept_by_their_bytes() -> None:
    encoded: list[str] = []
    cache = _cache(encoded, capacity_bytes=3 * _embedding("").nbytes)
    for prompt in ("a", "b", "c", "a", "d"):
        cache.get([prompt], strict=False)
    encoded.clear()
    cache.get(["a", "c", "d"], strict=False)
    assert encoded == []
    cache.get(["b"], strict=False)
    assert encoded == ["b"]


def test_g_an_embedding_beyond_the_bytes_is_used_and_not_kept() -> None:
    encoded: list[str] = []
    cache = _cache(encoded, capacity_bytes=_embedding("").nbytes - 1)
    for _ in range(2):
        (embedding,) = cache.get(["a"], strict=False)
        assert torch.equal(embedding.tokens, _embedding("a").tokens)
    assert encoded == ["a", "a"]


@pytest.mark.parametrize(
    ("bounds", "to_come"), [({"capacity": 5}, 3), ({"capacity_bytes": 4 * _embedding("").nbytes + 1}, 2)]
)
def test_g_the_cache_knows_the_memory_that_it_will_take(bounds: dict[str, int], to_come: int) -> None:
    cache = _cache([], **bounds)
    assert cache.bytes_to_come() == 0
    cache.get(["a", "b"], strict=False)
    assert cache.bytes_to_come() // _embedding("").nbytes == to_come


def test_g_what_fits_is_found_beside_the_embeddings_to_come(gpu: StandInDevice, one_size: LoadedModel) -> None:
    row = 100_000
    gpu.row_bytes["predict"] = row
    embedding = one_size.network.encode(["sun"])[0].nbytes
    for embeddings, fits in ((255, 8), (254, 6)):
        gpu.memory = 8 * row + embeddings * embedding
        engine = Engine(one_size, 8)
        engine.warm_up()
        assert max(engine.step_times[64, 64]) == fits
        assert gpu.memory == 8 * row + embeddings * embedding
