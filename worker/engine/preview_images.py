"""Previews of unfinished rows: their pred_x0, decoded small."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from worker.engine.outcomes import PreviewImage
from worker.engine.row import Row
from worker.pixels import to_uint8

LONGEST_SIDE = 256
"""Longest side of a preview in pixels: latents of a large image are averaged down before they are decoded."""


def decode_previews(
    rows: Sequence[Row], steps: int, decode: Callable[[torch.Tensor], torch.Tensor], most: int
) -> list[PreviewImage]:
    """Decode the first `most` of `rows` that have the size of the first, and mark them as shown."""
    shown = [row for row in rows if row.size == rows[0].size][:most]
    pred_x0 = torch.stack([row.pred_x0 for row in shown if row.pred_x0 is not None])
    shrink = max(1, -(-max(rows[0].size) // LONGEST_SIDE))
    pixels = to_uint8(decode(F.avg_pool2d(pred_x0, shrink))).cpu().numpy()
    for row in shown:
        row.shown_step = row.step
    return [
        PreviewImage(row.task.job_id, row.task.index, row.task.seed, row.step, steps, image)
        for row, image in zip(shown, pixels, strict=True)
    ]
