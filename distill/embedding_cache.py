"""Prompt embeddings on disk, encoded once for all runs that share the folder.

`index.json` says for every key in which safetensors shard and row its embeddings are. A key is the hash of the prompt,
the T5 block's length and the text encoders' files, so that nothing is kept twice and nothing old is taken for new.
Shards are only ever added, each of bounded size; reading maps them, so that a row costs its own bytes alone.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file

from distill import families, prompt_embeddings, teacher_pipeline

SCHEMA = 1
INDEX = "index.json"
SHARD_BYTES = 1 << 30
BATCH = 64

Place = tuple[str, int]
"""A shard's file name and a row in it."""


class EmbeddingCache:
    """The embeddings of `prompts`, one after the other, equal ones included."""

    def __init__(self, folder: Path, prompts: Sequence[str], places: Sequence[Place]) -> None:
        self.folder = folder
        self.prompts = tuple(prompts)
        self._places = tuple(places)
        self._shards: dict[str, Any] = {}

    def rows(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [B] → float32 [B, tokens, width] and float32 [B, width]."""
        found = [self._row(*self._places[number]) for number in numbers.tolist()]
        prompt, pooled = (torch.stack(parts).float() for parts in zip(*found, strict=True))
        return prompt, pooled

    def of(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """One prompt's rows, batch 1. Raises KeyError for a prompt that is not among `prompts`."""
        if prompt not in self.prompts:
            raise KeyError(f"prompt {prompt!r} is not among the run's")
        return self.rows(torch.tensor([self.prompts.index(prompt)]))

    def _row(self, shard: str, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        if shard not in self._shards:
            self._shards[shard] = safe_open(self.folder / shard, "pt").__enter__()
        file = self._shards[shard]
        return file.get_slice("prompt")[row], file.get_slice("pooled")[row]


def fill(
    folder: Path, teacher: Path, prompts: Sequence[str], max_sequence_length: int, shard_bytes: int = SHARD_BYTES
) -> EmbeddingCache:
    """Encode those of `prompts` that `folder` lacks, with the text encoders of `teacher`, and open it.

    A shard is kept as soon as it is whole: what is interrupted goes on there. Raises ValueError for a folder that
    another version has written.
    """
    encoders = encoders_sha256(teacher)
    keys = [_key(prompt, max_sequence_length, encoders) for prompt in prompts]
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        places = _index(folder)
        lacking = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in places}
        if lacking:
            _encode(folder, places, lacking, teacher, max_sequence_length, shard_bytes)
    return EmbeddingCache(folder, prompts, [places[key] for key in keys])


def encoders_sha256(teacher: Path) -> str:
    """Over every file of the text encoders and tokenizers in the pipeline folder `teacher`."""
    total = hashlib.sha256()
    for part in families.PIPELINES[teacher_pipeline.kind(teacher)].text_parts:
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


def _encode(
    folder: Path,
    places: dict[str, Place],
    lacking: dict[str, str],
    teacher: Path,
    max_sequence_length: int,
    shard_bytes: int,
) -> None:
    """Write shards of what is `lacking` and enter it in `places`."""
    pipeline = teacher_pipeline.load_text_encoders(teacher)
    waiting: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    room = 0
    for start in track(range(0, len(lacking), BATCH), "encoding prompts", transient=True):
        keys = list(lacking)[start : start + BATCH]
        encoded = prompt_embeddings.encode(pipeline, [lacking[key] for key in keys], max_sequence_length, BATCH)
        waiting += zip(keys, encoded.prompt.cpu(), encoded.pooled.cpu(), strict=True)
        room = max(1, shard_bytes // (waiting[0][1].nbytes + waiting[0][2].nbytes))
        while len(waiting) >= room:
            _write(folder, places, waiting[:room])
            del waiting[:room]
    if waiting:
        _write(folder, places, waiting)


def _write(folder: Path, places: dict[str, Place], rows: list[tuple[str, torch.Tensor, torch.Tensor]]) -> None:
    keys, prompt, pooled = zip(*rows, strict=True)
    name = f"shard-{hashlib.sha256(''.join(keys).encode()).hexdigest()[:16]}.safetensors"
    partial = folder / f"partial-{name}"
    save_file({"prompt": torch.stack(prompt), "pooled": torch.stack(pooled)}, partial)
    os.replace(partial, folder / name)
    places |= {key: (name, row) for row, key in enumerate(keys)}
    unfinished = folder / f"partial-{INDEX}"
    unfinished.write_text(json.dumps({"schema": SCHEMA, "places": places}))
    os.replace(unfinished, folder / INDEX)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One run at a time fills the folder; another waits, and then finds what it needs."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
