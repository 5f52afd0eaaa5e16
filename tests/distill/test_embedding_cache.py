"""The prompt-embedding cache: by content, in small shards, added to."""

import gc
import logging
import weakref
from pathlib import Path

import pytest
import torch
import yaml

from distill import config as configuration
from distill import embedding_cache, prompt_embeddings, teacher_pipeline
from distill.training.trainer import Trainer
from tests.distill.tiny_runs import SETTINGS
from worker.families.prompt_embeddings import PromptEmbedding
from worker.testing import tiny_pipelines

TOKENS = tiny_pipelines.TOKENS


def parts(embedding: PromptEmbedding) -> list[torch.Tensor]:
    assert embedding.parts.keys() == {"tokens", "pooled"}
    return list(embedding.parts.values())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save(tmp_path_factory.mktemp("models") / "tiny-teacher")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every prompt that is encoded."""
    told: list[str] = []
    encode = prompt_embeddings.encode

    def telling(pipeline, prompts, *rest):
        told.extend(prompts)
        return encode(pipeline, prompts, *rest)

    monkeypatch.setattr(prompt_embeddings, "encode", telling)
    return told


def test_every_prompt_is_encoded_once_for_all_runs(teacher: Path, tmp_path: Path, encoded: list[str]) -> None:
    first = embedding_cache.fill(tmp_path, teacher, ["a cat", "a dog", "a cat", ""], TOKENS)
    assert sorted(encoded) == ["", "a cat", "a dog"]
    encoded.clear()
    second = embedding_cache.fill(tmp_path, teacher, ["a fox", "a dog"], TOKENS)
    assert encoded == ["a fox"]
    for before, after in zip(parts(first.of("a dog")), parts(second.of("a dog")), strict=True):
        assert torch.equal(before, after)
    encoded.clear()
    embedding_cache.fill(tmp_path, teacher, ["a fox", "a cat"], TOKENS)
    assert encoded == []


def test_rows_are_what_the_text_encoders_say(teacher: Path, tmp_path: Path) -> None:
    texts = ["a cat", "a dog", "", "a cat"]
    cache = embedding_cache.fill(tmp_path, teacher, texts, TOKENS)
    direct = prompt_embeddings.encode(teacher_pipeline.load(teacher), texts, TOKENS)
    numbers = torch.tensor([3, 1, 2, 2])
    for ours, theirs in zip(parts(cache.rows(numbers)), parts(direct.rows(numbers)), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)
    with pytest.raises(KeyError, match="a fox"):
        cache.of("a fox")


def test_prompts_too_long_for_the_encoders_leave_the_log_quiet(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = teacher_pipeline.load(teacher)
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    caplog.clear()
    prompt_embeddings.encode(pipeline, [f"{letter} very long prompt " * 20 for letter in "abc"], TOKENS)
    for logger in loggers:
        logger.removeHandler(caplog.handler)
    assert "prompt" not in caplog.text


def test_no_shard_is_larger_than_allowed(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "BATCH", 3)
    texts = [f"prompt {letter}" for letter in "abcdefgh"]
    one = embedding_cache.fill(tmp_path / "one", teacher, texts[:1], TOKENS)
    row = sum(part.nbytes for part in parts(one.of(texts[0])))
    cache = embedding_cache.fill(tmp_path / "small", teacher, texts, TOKENS, shard_bytes=row)  # two rows in bfloat16
    assert len(list((tmp_path / "small").glob("shard-*.safetensors"))) == 4
    direct = prompt_embeddings.encode(teacher_pipeline.load(teacher), texts, TOKENS)
    everything = torch.arange(len(texts))
    for ours, theirs in zip(parts(cache.rows(everything)), parts(direct.rows(everything)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


def test_what_was_encoded_before_an_interruption_is_kept(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[str]
) -> None:
    monkeypatch.setattr(embedding_cache, "BATCH", 2)
    encode = prompt_embeddings.encode

    def interrupted(pipeline, prompts, *rest):
        if "c" in prompts:
            raise KeyboardInterrupt
        return encode(pipeline, prompts, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(prompt_embeddings, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedding_cache.fill(tmp_path, teacher, ["a", "b", "c"], TOKENS, shard_bytes=1)
    encoded.clear()
    embedding_cache.fill(tmp_path, teacher, ["a", "b", "c"], TOKENS, shard_bytes=1)
    assert encoded == ["c"]


def test_another_length_or_text_encoder_is_another_embedding(teacher: Path, tmp_path: Path, encoded: list[str]) -> None:
    embedding_cache.fill(tmp_path / "cache", teacher, ["a"], TOKENS)
    embedding_cache.fill(tmp_path / "cache", teacher, ["a"], TOKENS - 1)
    assert encoded == ["a", "a"]
    before = embedding_cache.encoders_sha256(teacher)
    other = tiny_pipelines.save(tmp_path / "other")
    assert embedding_cache.encoders_sha256(other) == before
    config = other / "text_encoder_3" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert embedding_cache.encoders_sha256(other) != before


def test_another_schema_is_refused(teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="schema 99"):
        embedding_cache.fill(tmp_path, teacher, ["a"], TOKENS)


@pytest.mark.slow
def test_no_text_encoder_is_in_memory_while_training(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    paths = {"teacher": str(teacher), "prompts": str(tmp_path / "prompts.txt")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS | paths))
    load, seen = teacher_pipeline.load_text_encoders, []

    def watched(folder: Path):
        pipeline = load(folder)
        assert (pipeline.transformer, pipeline.vae) == (None, None)
        seen.extend(weakref.ref(pipeline.components[f"text_encoder{n}"]) for n in ("", "_2", "_3"))
        return pipeline

    monkeypatch.setattr(teacher_pipeline, "load_text_encoders", watched)
    trainer = Trainer(configuration.load(tmp_path / "config.yaml"), tmp_path / "run")
    gc.collect()
    assert [part() for part in seen] == [None, None, None]
    assert trainer.embeddings.prompts == ("a", "b", "")
