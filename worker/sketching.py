"""Small pictures of what unfinished rows foresee."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from worker.pixels import to_uint8
from worker.row import Row, Sketch

LONGEST_SIDE = 256
"""In pixels: a preview of a large image is decoded from latents that are averaged down first."""


def sketches(
    rows: Sequence[Row], steps: int, decode: Callable[[torch.Tensor], torch.Tensor], most: int
) -> list[Sketch]:
    """One for each of the first `most` of `rows` that have the size of the first; marks them as shown."""
    shown = [row for row in rows if row.size == rows[0].size][:most]
    foreseen = torch.stack([row.foreseen for row in shown if row.foreseen is not None])
    shrink = max(1, -(-max(rows[0].size) // LONGEST_SIDE))
    pixels = to_uint8(decode(F.avg_pool2d(foreseen, shrink))).cpu().numpy()
    for row in shown:
        row.shown_step = row.step
    return [
        Sketch(row.task.job_id, row.task.index, row.task.seed, row.step, steps, image)
        for row, image in zip(shown, pixels, strict=True)
    ]
