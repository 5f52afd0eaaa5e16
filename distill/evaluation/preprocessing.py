"""Pictures as a Hugging Face vision model wants them, by the `preprocessor_config.json` of its folder.

transformers' own processors for newer models need torchvision, which is no dependency of fourstep.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch.nn import functional as F

FILE = "preprocessor_config.json"
FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""


@dataclass(frozen=True)
class Preprocessing:
    """`size` is (height, width), or the length of the shorter edge; `crop` (height, width) is cut from the middle."""

    size: tuple[int, int] | int
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: str = "bicubic"

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ValueError when the file is missing or asks for what is not known here."""
        if not (folder / FILE).is_file():
            raise ValueError(f"{folder} holds no {FILE}")
        config = json.loads((folder / FILE).read_text())
        resample = config.get("resample", 3)
        if resample not in FILTERS:
            raise ValueError(f"{folder / FILE}: resample {resample} is none of {', '.join(map(str, FILTERS))}")
        return cls(
            size=_size(config["size"]),
            crop=_edges(config["crop_size"]) if config.get("do_center_crop") else None,
            mean=tuple(config["image_mean"]),
            std=tuple(config["image_std"]),
            resample=FILTERS[resample],
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, H, W, 3] → float32 [B, 3, h, w], resized like Pillow does, then normalised."""
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = F.interpolate(pixels, self._target(*pixels.shape[2:]), mode=self.resample, antialias=True)
        pixels = pixels.clamp(0, 255).round() / 255
        if self.crop:
            top, left = ((have - want) // 2 for have, want in zip(pixels.shape[2:], self.crop, strict=True))
            pixels = pixels[:, :, top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        shorter = min(height, width)
        return height * self.size // shorter, width * self.size // shorter


def _size(size: Any) -> tuple[int, int] | int:
    if isinstance(size, int):
        return size
    return int(size["shortest_edge"]) if "shortest_edge" in size else _edges(size)


def _edges(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))
