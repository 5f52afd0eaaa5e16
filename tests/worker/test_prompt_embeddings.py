"""The cache of embeddings: by content, bounded, least recently used first out."""

from collections.abc import Sequence

import torch

from worker.prompt_embeddings import PromptEmbedding, PromptEmbeddings


class CountingEncoder:
    """Embeds a prompt as its length, and keeps what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, prompts: Sequence[str]) -> list[PromptEmbedding]:
        self.batches.append(list(prompts))
        lengths = [torch.tensor([float(len(prompt))]) for prompt in prompts]
        return [PromptEmbedding(tokens=length[None], pooled=length) for length in lengths]


def test_each_prompt_gets_its_own_embedding_in_order() -> None:
    embeddings = PromptEmbeddings(CountingEncoder(), max_batch=4)
    found = embeddings.get(["ccc", "a", "ccc", "bb"], strict=False)
    assert [embedding.pooled.item() for embedding in found] == [3, 1, 3, 2]


def test_misses_are_encoded_once_in_one_batch() -> None:
    encode = CountingEncoder()
    embeddings = PromptEmbeddings(encode, max_batch=8)
    embeddings.get(["a", "bb", "a", "ccc"], strict=False)
    embeddings.get(["ccc", "bb"], strict=False)
    assert encode.batches == [["a", "bb", "ccc"]]
    assert embeddings.hits == 3


def test_strict_encodes_at_the_canonical_batch_and_serves_fast_calls_too() -> None:
    encode = CountingEncoder()
    embeddings = PromptEmbeddings(encode, max_batch=4)
    embeddings.get(["a"], strict=False)
    embeddings.get(["a"], strict=True)
    embeddings.get(["a"], strict=True)
    embeddings.get(["a"], strict=False)
    assert encode.batches == [["a"], ["a"] * 4]


def test_the_least_recently_used_is_forgotten() -> None:
    encode = CountingEncoder()
    embeddings = PromptEmbeddings(encode, max_batch=1, capacity=2)
    for prompt in ["a", "bb", "a", "ccc", "a", "bb"]:
        embeddings.get([prompt], strict=False)
    assert encode.batches == [["a"], ["bb"], ["ccc"], ["bb"]]
