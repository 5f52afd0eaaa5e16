"""The pictures of an evaluation: every prompt with the same seeds, made by the serving engine itself."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from distill import image_grid
from jobs.sampling_contract import FILE_NAME
from worker.engine.engine import Engine
from worker.generate import generate
from worker.model_folder import loading

GRID_PROMPTS = 24


@dataclass(frozen=True)
class PictureSet:
    """`images` uint8 [prompts, seeds, H, W, 3] of the model whose weights hash to `sha256`, each in `evaluations`
    evaluations of its network."""

    sha256: str
    evaluations: int
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    images: np.ndarray

    def flat(self) -> torch.Tensor:
        """uint8 [prompts · seeds, H, W, 3], prompt by prompt."""
        return torch.from_numpy(self.images).flatten(0, 1)

    def save_grid(self, path: Path) -> None:
        """Write the pictures of the first prompts as a PNG: a row for each prompt, a column for each seed."""
        shown = self.images[:GRID_PROMPTS]
        image_grid.save_grid(shown.reshape(-1, *shown.shape[2:]), len(self.seeds), path)


@dataclass(frozen=True)
class Sampling:
    """Steps and guidance scale of a folder without sampling.json."""

    steps: int
    guidance_scale: float


def make(folder: Path, prompts: Sequence[str], seeds: Sequence[int], cache: Path, sampling: Sampling) -> PictureSet:
    """Sample `folder` as it is served; pictures of equal weights, grid, prompts and seeds come from `cache`.

    Raises FolderRefusedError for a folder that cannot be served and RuntimeError when a picture fails.
    """
    model = loading.load(str(folder), steps=sampling.steps)
    if not (folder / FILE_NAME).is_file():
        guided = model.contract.model_copy(update={"guidance_scale": sampling.guidance_scale})
        model = replace(model, contract=guided)
    key = json.dumps([model.sha256, model.contract.model_dump(mode="json"), list(prompts), list(seeds)])
    path = cache / f"{folder.resolve().name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"
    if path.exists():
        images = np.load(path, allow_pickle=False)
    else:
        engine = Engine(model, max_batch=len(seeds))
        described = track(prompts, description=folder.resolve().name)
        images = np.stack([generate(engine, [prompt] * len(seeds), seeds) for prompt in described])
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, images)
    return PictureSet(model.sha256, model.contract.evaluations, tuple(prompts), tuple(seeds), images)
