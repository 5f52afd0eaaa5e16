"""Networks read the pictures of an evaluation, a few prompts at a time, on any number of processes.

What a network says of a few prompts is kept in a file: an interrupted evaluation goes on there, and one with a further
network asks that one alone.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from distill.claims import claimed
from distill.evaluation.pictures import PictureSet, part, save

Read = Callable[[slice, torch.Tensor], torch.Tensor]
"""A range of the prompts and their pictures uint8 [p, R, H, W, 3] → float32 [p, R, D]."""

PIXEL_ERROR = "pixel_error"


@dataclass(frozen=True)
class Measured:
    """The networks' measures of a model's pictures and its teacher's, float32 [P, R, D] by name, and the mean squared
    difference of pixels in [−1, 1] between pictures of the same noise."""

    ours: Mapping[str, torch.Tensor]
    theirs: Mapping[str, torch.Tensor]
    pixel_error: float


def measure(ours: PictureSet, theirs: PictureSet, readers: Mapping[str, Read], folder: Path) -> Measured:
    """Let each of `readers` read both sets; their names must tell different networks apart.

    Every process takes some of the prompts, and all return when everything is read. Raises ValueError for pictures of
    different sizes.
    """
    if ours.size != theirs.size:
        sizes = " and ".join(f"{height}×{width}" for height, width in (ours.size, theirs.size))
        raise ValueError(f"model and teacher make pictures of different sizes, {sizes}; they cannot be compared")
    pair = hashlib.sha256(f"{ours.key} {theirs.key}".encode()).hexdigest()[:12]

    def path(of: str, name: str, number: int) -> Path:
        return folder / of / name / f"{number:05}.npy"

    def lacking(number: int) -> list[tuple[str, str]]:
        wanted = [(one.key, name) for one in (ours, theirs) for name in readers] + [(pair, PIXEL_ERROR)]
        return [each for each in dict.fromkeys(wanted) if not path(*each, number).exists()]

    for number in claimed(folder / pair, ours.units, str, lambda number: not lacking(number), "reading pictures"):
        images = {one.key: torch.from_numpy(one.unit(number)) for one in (ours, theirs)}
        for of, name in lacking(number):
            if name == PIXEL_ERROR:
                found = _pixel_error(images[ours.key], images[theirs.key])
            else:
                found = readers[name](part(number), images[of])
            path(of, name, number).parent.mkdir(parents=True, exist_ok=True)
            save(path(of, name, number), found.numpy())

    def joined(of: str, name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([np.load(path(of, name, number)) for number in ours.units]))

    mine, its = ({name: joined(one.key, name) for name in readers} for one in (ours, theirs))
    return Measured(mine, its, float(joined(pair, PIXEL_ERROR).mean()))


def fingerprint(*files: Path) -> str:
    """A short hash of names, sizes and times of all files in the folders `files`, or of the files themselves."""
    told = hashlib.sha256()
    for given in files:
        for file in sorted(given.rglob("*")) if given.is_dir() else [given]:
            about = file.stat()
            told.update(f"{file.resolve()} {about.st_size} {about.st_mtime_ns}\n".encode())
    return told.hexdigest()[:12]


def _pixel_error(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """uint8 [p, R, H, W, 3] twice → [p, R]."""
    each = [
        [float(F.mse_loss(one.float(), other.float())) / 127.5**2 for one, other in zip(*row, strict=True)]
        for row in zip(ours, theirs, strict=True)
    ]
    return torch.tensor(each)
