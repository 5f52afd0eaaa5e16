"""Diversity of the images of one call, measured on a short vector that is stored with each of them."""

import base64
import math
import struct
from collections.abc import Sequence

METRIC = "1 - mean pairwise cosine of 4x4 latent layouts"
LAYOUT_GRID = 4


def pack_layout(values: Sequence[float]) -> str:
    """Encode an image's layout (at least 1 value) as base64 of one signed byte a value; the common scale is lost."""
    scale = 127 / (max(abs(value) for value in values) or 1.0)
    return base64.b64encode(struct.pack(f"{len(values)}b", *(round(scale * value) for value in values))).decode()


def diversity_score(packed: Sequence[str]) -> float:
    """1 − mean cosine over all pairs of at least two layouts (as arXiv 2602.03139, Eq. 9): 0 when all are the same.

    Around 1 when they have nothing in common; above, up to 2, only for opposites.
    """
    count = len(packed)
    if count < 2:
        raise ValueError("a diversity score needs at least 2 images")
    units = [_unit(text) for text in packed]
    # The sum over all ordered pairs, each with itself included, is the squared length of the sum.
    total = [sum(column) for column in zip(*units, strict=True)]
    pairs = sum(value * value for value in total) - sum(value * value for unit in units for value in unit)
    return max(0.0, 1 - pairs / (count * (count - 1)))


def _unit(text: str) -> list[float]:
    data = base64.b64decode(text)
    values = struct.unpack(f"{len(data)}b", data)
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]
