"""The pictures of an evaluation: every prompt with the same seeds, made by the serving engine itself.

They are made, kept and read a few prompts at a time: 1,024 prompts with nine pictures of 1024² are 29 GB.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distill import image_grid
from distill.claims import claimed
from jobs.sampling_contract import FILE_NAME
from worker.engine.engine import Engine
from worker.generate import generate
from worker.model_folder import loading

GRID_PROMPTS = 24
UNIT = 4
"""Prompts whose pictures are in memory at once."""


@dataclass(frozen=True)
class PictureSet:
    """Pictures of the model with the hash `sha256`, each in `evaluations` evaluations of its network.

    `unit(n)` returns the pictures of the prompts `part(n)`, uint8 [at most UNIT, seeds, H, W, 3]. `key` tells the set
    from every other.
    """

    sha256: str
    evaluations: int
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: tuple[int, int]
    key: str
    unit: Callable[[int], np.ndarray]

    @property
    def units(self) -> range:
        return range(math.ceil(len(self.prompts) / UNIT))

    def save_grid(self, path: Path) -> None:
        """Write the pictures of the first prompts as a PNG: a row for each prompt, a column for each seed."""
        few = [self.unit(number) for number in self.units[: GRID_PROMPTS // UNIT]]
        small = [image_grid.shrunk(images.reshape(-1, *images.shape[2:])) for images in few]
        image_grid.save_grid(np.concatenate(small), len(self.seeds), path)


def part(number: int) -> slice:
    """The prompts of unit `number`."""
    return slice(number * UNIT, (number + 1) * UNIT)


@dataclass(frozen=True)
class Sampling:
    """Steps and guidance scale of a folder without sampling.json; a model that is told its scale keeps its own."""

    steps: int
    guidance_scale: float


def make(
    folder: Path, prompts: Sequence[str], seeds: Sequence[int], cache: Path, sampling: Sampling, keep: bool = True
) -> PictureSet:
    """Sample `folder` as it is served; pictures of equal weights, grid, prompts and seeds come from `cache`.

    With `keep` they are all made here, shared with other processes that do the same, and kept in `cache`. Without, a
    unit is made whenever it is asked for. Raises FolderRefusedError for a folder that cannot be served and RuntimeError
    when a picture fails.
    """
    model = loading.load(str(folder), steps=sampling.steps)
    if not (folder / FILE_NAME).is_file() and model.contract.told_guidance is None:
        guided = model.contract.model_copy(update={"guidance_scale": sampling.guidance_scale})
        model = replace(model, contract=guided)
    described = json.dumps([model.sha256, model.contract.model_dump(mode="json"), list(prompts), list(seeds)])
    key = f"{folder.resolve().name}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
    engine = Engine(model, max_batch=len(seeds))

    def sample(number: int) -> np.ndarray:
        return np.stack([generate(engine, [prompt] * len(seeds), seeds) for prompt in prompts[part(number)]])

    def path(number: int) -> Path:
        return cache / key / f"{number:05}.npy"

    read = (lambda number: np.load(path(number), allow_pickle=False)) if keep else sample
    made = PictureSet(
        model.sha256, model.contract.evaluations, tuple(prompts), tuple(seeds), model.contract.sizes[0], key, read
    )
    if keep:
        for number in claimed(
            cache / key, made.units, str, lambda number: path(number).exists(), folder.resolve().name
        ):
            save(path(number), sample(number))
    return made


def save(path: Path, array: np.ndarray) -> None:
    """Write an .npy file that is there whole or not at all."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with open(partial, "wb") as file:
        np.save(file, array)
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file that is there whole or not at all."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)
