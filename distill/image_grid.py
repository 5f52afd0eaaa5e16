"""Draw batches of images as one grid."""

from pathlib import Path

import numpy as np
from diffusers.utils import make_image_grid
from PIL import Image


def save_grid(images: np.ndarray, columns: int, path: Path, scale: int = 1) -> None:
    """Write uint8 [B, H, W, 3] as a PNG with `columns` pictures a row (B divisible by `columns`)."""
    pictures = [Image.fromarray(image) for image in images]
    grid = make_image_grid(pictures, rows=len(pictures) // columns, cols=columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.resize((grid.width * scale, grid.height * scale), Image.Resampling.NEAREST).save(path)
