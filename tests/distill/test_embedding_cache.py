"""The prompt-embedding cache: by content, in small shards, added to."""

import fcntl
import gc
import logging
import threading
import weakref
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file

from distill import config as configuration
from distill import embedding_cache, prompt_embeddings, teacher_pipeline
from distill.training.trainer import Trainer
from jobs.testing import waiting
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


def test_processes_share_the_chunks_and_wait_for_those_that_others_encode(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[str]
) -> None:
    """One chunk is held as by another process, which then dies: the rest is encoded meanwhile, and that chunk after."""
    monkeypatch.setattr(embedding_cache, "BATCH", 2)
    monkeypatch.setattr(embedding_cache, "CHUNK", 2)
    prompts = [f"prompt {letter}" for letter in "abcdef"]
    encoders = embedding_cache.encoders_sha256(teacher)
    held = embedding_cache._name_of([embedding_cache._key(prompt, TOKENS, encoders) for prompt in prompts[2:4]])
    opened: list[embedding_cache.EmbeddingCache] = []
    with open(tmp_path / f"claim-{held}", "w") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        filling = threading.Thread(
            target=lambda: opened.append(embedding_cache.fill(tmp_path, teacher, prompts, TOKENS))
        )
        filling.start()
        waiting.block_until(lambda: len(embedding_cache._index(tmp_path)) >= 4, "the other chunks")
        assert encoded == [*prompts[:2], *prompts[4:]]
        assert not opened
    filling.join(waiting.SAFETY_NET_S)
    assert encoded == [*prompts[:2], *prompts[4:], *prompts[2:4]]
    assert opened[0].rows(torch.arange(6)).tokens.shape[0] == 6


@pytest.mark.slow
def test_nothing_is_encoded_twice_by_three_processes(teacher: Path, tmp_path: Path, forked) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {number}" for number in range(600)))
    arguments = ["cache", "--teacher", teacher, "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "cache"]
    codes = forked.run(
        "tests.distill.training.distill_command", [*arguments, "--max-sequence-length", TOKENS], tmp_path / "log",
        [{"RANK": rank, "OMP_NUM_THREADS": "1"} for rank in "012"],
    )  # fmt: skip
    assert codes == [0, 0, 0], (tmp_path / "log").read_text()[-3000:]
    rows = [len(load_file(shard)["pooled"]) for shard in (tmp_path / "cache").glob("shard-*")]
    assert sorted(rows) == [89, 256, 256], "600 prompts and the empty one"


@pytest.mark.slow
def test_no_process_waits_in_a_collective_while_prompts_are_encoded(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def barrier(*_) -> None:
        raise AssertionError("NCCL gives up after a while")

    monkeypatch.setattr(Accelerator, "main_process_first", barrier)
    monkeypatch.setattr(Accelerator, "wait_for_everyone", barrier)
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    paths = {"teacher": teacher, "prompts": tmp_path / "prompts.txt"}
    Trainer(configuration.DistillConfig.model_validate(SETTINGS | paths), tmp_path / "run")


@pytest.mark.parametrize(("accelerated", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_text_encoders_are_in_bfloat16_on_an_accelerator_and_never_in_another_type(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerated: bool, dtype: torch.dtype
) -> None:
    """A T5 of five billion weights, stored in float16 as published, takes 10 GB so, and 22 in float32."""
    pipeline = teacher_pipeline.load(teacher)
    pipeline.text_encoder_3.half()
    pipeline.save_pretrained(tmp_path)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerated)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))
    loaded = teacher_pipeline.load_text_encoders(tmp_path)
    parts = (loaded.text_encoder, loaded.text_encoder_3)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {dtype}
    assert next(teacher_pipeline.load(tmp_path).text_encoder_3.parameters()).dtype == torch.float16
