"""Draw batches of images as one grid."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_grid(images: np.ndarray, columns: int, path: Path, scale: int = 1) -> None:
    """Write uint8 [B, H, W, 3] as a PNG with `columns` pictures a row (B divisible by `columns`)."""
    batch, height, width, _ = images.shape
    rows = images.reshape(batch // columns, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    grid = Image.fromarray(rows.reshape(batch // columns * height, columns * width, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.resize((grid.width * scale, grid.height * scale), Image.Resampling.NEAREST).save(path)
