"""The pictures of an evaluation: every prompt with the same seeds, made by the serving engine itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from worker import model_folder
from worker.engine import Engine
from worker.generate import generate


@dataclass(frozen=True)
class PictureSet:
    """`images` uint8 [prompts, seeds, H, W, 3] of the model whose weights hash to `sha256`."""

    sha256: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    images: np.ndarray

    def flat(self) -> torch.Tensor:
        """uint8 [prompts · seeds, H, W, 3], prompt by prompt."""
        return torch.from_numpy(self.images).flatten(0, 1)


def make(folder: Path, prompts: Sequence[str], seeds: Sequence[int], cache: Path) -> PictureSet:
    """Sample `folder` as it is served; pictures made before of equal weights, prompts and seeds come from `cache`.

    Raises FolderRefused for a folder that cannot be served and RuntimeError when a picture fails.
    """
    model = model_folder.load(str(folder))
    path = cache / f"{folder.name}-{model.sha256[:12]}.npz"
    images = _kept(path, prompts, seeds)
    if images is None:
        engine = Engine(model, max_batch=len(seeds))
        rows = [
            generate(engine, [prompt] * len(seeds), seeds)
            for prompt in track(prompts, description=folder.resolve().name)
        ]
        images = np.stack(rows)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=images, prompts=np.array(prompts), seeds=np.array(seeds))
    return PictureSet(model.sha256, tuple(prompts), tuple(seeds), images)


def _kept(path: Path, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as kept:
        fits = list(kept["prompts"]) == list(prompts) and list(kept["seeds"]) == list(seeds)
        return kept["images"] if fits else None
