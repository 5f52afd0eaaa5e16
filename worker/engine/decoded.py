"""Decoded rows on their way to outcomes, which needs neither the device nor the engine; and previews."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional as F

from jobs.diversity import LAYOUT_GRID
from worker.engine.diverse_set import CandidateSet, latent_descriptors
from worker.engine.outcomes import Failure, Outcome, Picture, PreviewImage
from worker.engine.row import Row
from worker.engine.row_starts.source_latents import mask_of, picture_of
from worker.pixels import mixed, to_uint8

LONGEST_SIDE = 256
"""Longest side of a preview in pixels: latents of a large image are averaged down before they are decoded."""

NOT_FINITE = "the image came out as NaN or infinity"

Judge = Callable[[Sequence[np.ndarray]], list[str | None]]
"""Says of each picture, uint8 [height, width, 3], for what it is refused, None if it is not."""


@dataclass(frozen=True)
class Decoded:
    """Finished `rows` with their `latents` fp32 [B, C, h, w] and decoded `images` fp32 [B, 3, H, W]; rows of padding
    may follow."""

    rows: list[Row]
    latents: torch.Tensor
    images: torch.Tensor

    def pictures(self, judge: Judge | None = None) -> list[Picture | Failure]:
        """Return the pictures in the order of `rows`; failures where a value is not finite or `judge` refuses."""
        finite, pixels, layouts = (tensor.numpy()[: len(self.rows)] for tensor in self._on_host)
        whole = [_with_its_source(row, made) for row, made in zip(self.rows, pixels, strict=True)]
        sound = finite.nonzero()[0].tolist()
        seen = [whole[position] for position in sound]
        refused = dict(zip(sound, judge(seen) if judge and seen else (), strict=False))
        made: list[Picture | Failure] = []
        for position, row in enumerate(self.rows):
            if not finite[position]:
                made.append(Failure(row.task_key, "error", NOT_FINITE))
            elif label := refused.get(position):
                made.append(
                    Failure(row.task_key, "refused", f"the server's safety model takes the picture for {label}")
                )
            else:
                made.append(_picture(row, whole[position], layouts[position].tolist()))
        return made

    def on_host(self) -> "Decoded":
        """Do the device's part of the work now."""
        _ = self._on_host
        return self

    @cached_property
    @torch.inference_mode()
    def _on_host(self) -> list[torch.Tensor]:
        """Return whether each row is finite, bool [B], its pixels, uint8 [B, H, W, 3], and its descriptor."""
        latents, images = self.latents, self.images
        finite = latents.isfinite().flatten(1).all(1) & images.isfinite().flatten(1).all(1)
        return [tensor.cpu() for tensor in (finite, to_uint8(images), latent_descriptors(latents, LAYOUT_GRID))]


@dataclass(frozen=True)
class Advance:
    """The results of a step: finished rows with the sets that they belong to, and the tasks that failed.

    `judge` sees each picture before it is an outcome.
    """

    decoded: list[tuple[Decoded, list[CandidateSet | None]]]
    failures: list[Failure]
    judge: Judge | None = None

    def __bool__(self) -> bool:
        return bool(self.decoded or self.failures)

    def outcomes(self) -> list[Outcome]:
        """Make the pictures; returns the tasks that they complete, and those that failed.

        To be called once, in the order of the steps, on any one thread.
        """
        made = [
            candidates.collect(picture) if candidates else picture
            for decoded, sets in self.decoded
            for candidates, picture in zip(sets, decoded.pictures(self.judge), strict=True)
        ]
        return [*(outcome for outcome in made if outcome is not None), *self.failures]


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


def _with_its_source(row: Row, made: np.ndarray) -> np.ndarray:
    """Return the pixels that were `made`, but those of its source picture where that stays: the autoencoder would not
    give them back as they were."""
    if row.source is None or row.source.mask is None:
        return made
    return mixed(made, picture_of(row.source.image), mask_of(row.source.mask))


def _picture(row: Row, pixels: np.ndarray, layout: list[float]) -> Picture:
    assert row.start is not None
    return Picture(
        key=row.task_key,
        seed=row.task.seed,
        pixels=pixels,
        layout=layout,
        bucket=row.bucket,
        seconds=row.seconds,
        began=row.began,
        prompt_tokens=row.start.prompt_tokens,
        negative_tokens=row.start.negative_tokens,
        work_s=row.work_s,
    )
