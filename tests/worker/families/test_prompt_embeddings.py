"""The cache of embeddings: by content, bounded, least recently used first out."""

from collections.abc import Sequence

import pytest
import torch

from worker.engine.row_starts.prompt_cache import PromptCache
from worker.families.prompt_embeddings import PromptEmbedding


class CountingEncoder:
    """Embeds a prompt as its length, and keeps what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, prompts: Sequence[str]) -> list[PromptEmbedding]:
        self.batches.append(list(prompts))
        lengths = [torch.tensor([float(len(prompt))]) for prompt in prompts]
        return [PromptEmbedding(tokens=length[None], pooled=length) for length in lengths]


def test_each_prompt_gets_its_own_embedding_in_order() -> None:
    embeddings = PromptCache(CountingEncoder(), max_batch=4)
    found = embeddings.get(["ccc", "a", "ccc", "bb"], strict=False)
    assert [embedding.pooled.item() for embedding in found] == [3, 1, 3, 2]


def test_misses_are_encoded_once_in_one_batch() -> None:
    encode = CountingEncoder()
    embeddings = PromptCache(encode, max_batch=8)
    embeddings.get(["a", "bb", "a", "ccc"], strict=False)
    embeddings.get(["ccc", "bb"], strict=False)
    assert encode.batches == [["a", "bb", "ccc"]]
    assert embeddings.hits == 3


def test_strict_encodes_at_the_canonical_batch_and_serves_fast_calls_too() -> None:
    encode = CountingEncoder()
    embeddings = PromptCache(encode, max_batch=4)
    embeddings.get(["a"], strict=False)
    embeddings.get(["a"], strict=True)
    embeddings.get(["a"], strict=True)
    embeddings.get(["a"], strict=False)
    assert encode.batches == [["a"], ["a"] * 4]


def test_what_waits_is_encoded_along_where_the_batch_has_room() -> None:
    encode = CountingEncoder()
    embeddings = PromptCache(encode, max_batch=4)
    embeddings.get(["a", "bb"], strict=False, waiting=["ccc", "a", "ccc", "dddd", "eeeee"])
    assert encode.batches == [["a", "bb", "ccc", "dddd"]]
    embeddings.get(["ccc"], strict=False, waiting=["eeeee"])
    assert encode.batches == [["a", "bb", "ccc", "dddd"]]
    embeddings.get(["a"], strict=True, waiting=["dddd"])
    assert encode.batches[1:] == [["a", "dddd", "a", "a"]]


def test_no_more_than_asked_for_is_encoded_along() -> None:
    encode = CountingEncoder()
    embeddings = PromptCache(encode, max_batch=4)
    for fill_to in (2, 1, 0):
        embeddings.fill_to = fill_to
        embeddings.get([f"a{fill_to}"], strict=False, waiting=[f"b{fill_to}", f"c{fill_to}"])
    assert encode.batches == [["a2", "b2"], ["a1"], ["a0"]]


def test_a_prompt_that_cannot_be_encoded_costs_only_its_own_image(caplog: pytest.LogCaptureFixture) -> None:
    count = CountingEncoder()

    def encode(prompts: Sequence[str]) -> list[PromptEmbedding]:
        if "poison" in prompts:
            raise RuntimeError("no such word")
        return count(prompts)

    embeddings = PromptCache(encode, max_batch=4)
    assert embeddings.get(["a"], strict=False, waiting=["poison", "bb"])[0].pooled == 1
    assert embeddings.hits == 0
    assert "RuntimeError in a batch of 3" in caplog.text
    assert "poison" not in caplog.text
    with pytest.raises(RuntimeError, match="no such word"):
        embeddings.get(["poison"], strict=False)


def test_the_least_recently_used_is_forgotten() -> None:
    encode = CountingEncoder()
    embeddings = PromptCache(encode, max_batch=1, capacity=2)
    for prompt in ["a", "bb", "a", "ccc", "a", "bb"]:
        embeddings.get([prompt], strict=False)
    assert encode.batches == [["a"], ["bb"], ["ccc"], ["bb"]]


class Weighed(PromptEmbedding):
    """Counts how often an embedding was asked for its bytes."""

    asked = 0

    @property
    def nbytes(self) -> int:
        Weighed.asked += 1
        return super().nbytes


def test_the_bytes_kept_are_those_of_what_is_kept_and_weighed_once_each() -> None:
    def encode(prompts: Sequence[str]) -> list[PromptEmbedding]:
        return [Weighed(tokens=torch.zeros(len(prompt), 1)) for prompt in prompts]

    embeddings = PromptCache(encode, max_batch=4, capacity=100, capacity_bytes=4 * 60)
    for strict in (False, True, False):
        for length in range(1, 21):
            embeddings.get(["x" * length], strict=strict)
    kept = 20 + 19 + 18  # with the 17 next they are more than 60
    assert embeddings.bytes_to_come() == 4 * (60 - kept)
    encoded = 3 * 20
    # Each when it is encoded and when it is replaced or forgotten.
    assert Weighed.asked <= 2 * encoded
