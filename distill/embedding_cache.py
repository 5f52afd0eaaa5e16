"""Prompt embeddings on disk, encoded once for all runs that share the folder.

`index.json` says for every key in which safetensors shard and row its embeddings are. A key is the hash of the prompt,
the T5 block's length and the text encoders' files, so that nothing is kept twice and nothing old is taken for new.
Shards are only ever added, each of bounded size; reading maps them, so that a row costs its own bytes alone.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from distill import prompt_embeddings, teacher_pipeline
from distill.claims import alone, claimed
from worker.families.prompt_embeddings import PromptEmbedding, stacked

SCHEMA = 1
INDEX = "index.json"
SHARD_BYTES = 1 << 30
BATCH = 64
CHUNK = 256
"""Prompts that a process takes at a time."""

Place = tuple[str, int]
"""A shard's file name and a row in it."""

STORED_NAMES = {"tokens": "prompt"}
"""Part of an embedding → its name in a shard, where the two differ."""
PART_NAMES = {stored: name for name, stored in STORED_NAMES.items()}


class EmbeddingCache:
    """The embeddings of `prompts`, one after the other, equal ones included."""

    def __init__(self, folder: Path, prompts: Sequence[str], places: Sequence[Place]) -> None:
        self.folder = folder
        self.prompts = tuple(prompts)
        self._places = tuple(places)
        self._shards: dict[str, Any] = {}

    def rows(self, numbers: torch.Tensor) -> PromptEmbedding:
        """Return the batch of the prompts numbered `numbers`, int64 [B], in float32."""
        found = [self._row(*self._places[number]) for number in numbers.tolist()]
        return stacked(found).to(dtype=torch.float32)

    def of(self, prompt: str) -> PromptEmbedding:
        """Return one prompt's embedding as a batch of 1. Raises KeyError for a prompt that is not among `prompts`."""
        if prompt not in self.prompts:
            raise KeyError(f"prompt {prompt!r} is not among the run's")
        return self.rows(torch.tensor([self.prompts.index(prompt)]))

    def _row(self, shard: str, row: int) -> PromptEmbedding:
        if shard not in self._shards:
            self._shards[shard] = safe_open(self.folder / shard, "pt").__enter__()
        file = self._shards[shard]
        return PromptEmbedding(**{PART_NAMES.get(name, name): file.get_slice(name)[row] for name in file.keys()})  # noqa: SIM118


def fill(
    folder: Path, teacher: Path, prompts: Sequence[str], max_sequence_length: int, shard_bytes: int = SHARD_BYTES
) -> EmbeddingCache:
    """Encode those of `prompts` that `folder` lacks, with the text encoders of `teacher`, and open it.

    Any number of processes may call it at once, on one machine or several that share the folder: each takes a chunk of
    the prompts at a time, and all return when all is there. A shard is kept as soon as it is whole: what is interrupted
    goes on there. Raises ValueError for a folder that another version has written.
    """
    encoders = encoders_sha256(teacher)
    keys = [_key(prompt, max_sequence_length, encoders) for prompt in prompts]
    folder.mkdir(parents=True, exist_ok=True)
    places = _index(folder)
    if any(key not in places for key in keys):
        _encode_chunks(
            folder, dict(zip(keys, prompts, strict=True)), _Encoder(teacher, max_sequence_length), shard_bytes
        )
        places = _index(folder)
    return EmbeddingCache(folder, prompts, [places[key] for key in keys])


def encoders_sha256(teacher: Path) -> str:
    """Over every file of the text encoders and tokenizers in the pipeline folder `teacher`."""
    total = hashlib.sha256()
    for part in teacher_pipeline.family(teacher).text_components:
        for path in sorted((teacher / part).glob("*")):
            with open(path, "rb") as file:
                total.update(f"{part}/{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _key(prompt: str, max_sequence_length: int, encoders: str) -> str:
    return hashlib.sha256(f"{encoders} {max_sequence_length} {prompt}".encode()).hexdigest()


def _index(folder: Path) -> dict[str, Place]:
    path = folder / INDEX
    if not path.exists():
        return {}
    index = json.loads(path.read_text())
    if index.get("schema") != SCHEMA:
        raise ValueError(f"embeddings: {folder} has schema {index.get('schema')}, not {SCHEMA}; name another folder")
    return {key: (shard, row) for key, (shard, row) in index["places"].items()}


class _Encoder:
    """The text encoders of `teacher`, loaded when the first prompt needs them."""

    def __init__(self, teacher: Path, max_sequence_length: int) -> None:
        self.teacher, self.max_sequence_length = teacher, max_sequence_length

    @cached_property
    def pipeline(self) -> Any:
        return teacher_pipeline.load_text_encoders(self.teacher)

    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        encoded = prompt_embeddings.encode(self.pipeline, prompts, self.max_sequence_length, BATCH)
        return encoded.unique.to(device="cpu")


def _encode_chunks(folder: Path, prompts: Mapping[str, str], encode: _Encoder, shard_bytes: int) -> None:
    """Encode those of `prompts`, key → prompt, that the folder lacks, sharing the chunks with other processes."""
    keys = list(prompts)
    chunks = [keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK)]

    def lacking(chunk: Sequence[str]) -> dict[str, str]:
        places = _index(folder)
        return {key: prompts[key] for key in chunk if key not in places}

    for chunk in claimed(folder, chunks, _name_of, lambda chunk: not lacking(chunk), "encoding prompts"):
        _encode(folder, lacking(chunk), encode, shard_bytes)


def _encode(folder: Path, lacking: Mapping[str, str], encode: _Encoder, shard_bytes: int) -> None:
    """Write shards of what is `lacking`."""
    waiting: list[tuple[str, PromptEmbedding]] = []
    room = 0
    for start in range(0, len(lacking), BATCH):
        keys = list(lacking)[start : start + BATCH]
        unique = encode([lacking[key] for key in keys])
        waiting += [(key, unique.map(lambda part, row=row: part[row])) for row, key in enumerate(keys)]  # type: ignore[misc]
        room = max(1, shard_bytes // sum(part.nbytes for part in waiting[0][1].parts.values()))
        while len(waiting) >= room:
            _write(folder, waiting[:room])
            del waiting[:room]
    if waiting:
        _write(folder, waiting)


def _write(folder: Path, rows: list[tuple[str, PromptEmbedding]]) -> None:
    keys, embeddings = zip(*rows, strict=True)
    name = f"shard-{_name_of(keys)}.safetensors"
    partial = folder / f"partial-{os.getpid()}-{name}"
    parts = stacked(embeddings).parts
    save_file({STORED_NAMES.get(name, name): part for name, part in parts.items()}, partial)
    os.replace(partial, folder / name)
    with alone(folder / "lock"):
        places = _index(folder) | {key: (name, row) for row, key in enumerate(keys)}
        unfinished = folder / f"partial-{INDEX}"
        unfinished.write_text(json.dumps({"schema": SCHEMA, "places": places}))
        os.replace(unfinished, folder / INDEX)


def _name_of(keys: Sequence[str]) -> str:
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
