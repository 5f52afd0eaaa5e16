"""Draw batches of images as one grid."""

from pathlib import Path

import numpy as np
from diffusers.utils import make_image_grid
from PIL import Image

LARGEST_SIDE = 256
"""Pixels along a picture's longer side in a grid, at most: sixty-four pictures of 1024² would be an image that Pillow,
and so TensorBoard, refuses to open."""


def save_grid(images: np.ndarray, columns: int, path: Path, scale: int = 1) -> None:
    """Write uint8 [B, H, W, 3] as a PNG with `columns` pictures a row (B divisible by `columns`).

    Each picture is enlarged `scale` times, or as far as `LARGEST_SIDE` allows; larger ones are made smaller.
    """
    pictures = [Image.fromarray(image) for image in shrunk(images)]
    grid = make_image_grid(pictures, rows=len(pictures) // columns, cols=columns)
    scale = max(1, min(scale, LARGEST_SIDE // max(pictures[0].size)))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.resize((grid.width * scale, grid.height * scale), Image.Resampling.NEAREST).save(path)


def shrunk(images: np.ndarray) -> np.ndarray:
    """Make uint8 [B, H, W, 3] no longer than `LARGEST_SIDE` on a side; smaller pictures stay as they are."""
    height, width = images.shape[1:3]
    longer = max(height, width)
    if longer <= LARGEST_SIDE:
        return images
    size = (round(width * LARGEST_SIDE / longer), round(height * LARGEST_SIDE / longer))
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in images])
