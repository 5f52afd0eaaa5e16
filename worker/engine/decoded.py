"""Decoded rows on their way to outcomes: work that needs neither the device nor the engine, for another thread."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from jobs.diversity import LAYOUT_GRID
from worker.engine.diverse_set import NOT_FINITE, CandidateSet
from worker.engine.latent_descriptor import latent_descriptors
from worker.engine.outcomes import Failure, Outcome, Picture
from worker.engine.row import Row
from worker.pixels import to_uint8


@dataclass(frozen=True)
class Decoded:
    """Finished `rows` with their `latents` fp32 [B, C, h, w] and decoded `images` fp32 [B, 3, H, W]; rows of padding
    may follow."""

    rows: list[Row]
    latents: torch.Tensor
    images: torch.Tensor

    def pictures(self) -> list[Picture | None]:
        """Return the pictures in the order of `rows`; None where latents or pixels are not finite."""
        finite, pixels, seen = self._on_host
        parts = zip(self.rows, pixels.numpy(), seen.tolist(), finite.tolist(), strict=False)
        return [_picture(row, image, layout) if sound else None for row, image, layout, sound in parts]

    def on_host(self) -> "Decoded":
        """Do the device's part of the work now."""
        _ = self._on_host
        return self

    @cached_property
    @torch.inference_mode()
    def _on_host(self) -> list[torch.Tensor]:
        """Whether each row is finite, bool [B], its pixels, uint8 [B, H, W, 3], and its descriptor."""
        latents, images = self.latents, self.images
        finite = latents.isfinite().flatten(1).all(1) & images.isfinite().flatten(1).all(1)
        return [tensor.cpu() for tensor in (finite, to_uint8(images), latent_descriptors(latents, LAYOUT_GRID))]


@dataclass(frozen=True)
class Advance:
    """What a step brought: finished rows with the sets that they belong to, and the tasks that failed."""

    decoded: list[tuple[Decoded, list[CandidateSet | None]]]
    failures: list[Failure]

    def __bool__(self) -> bool:
        return bool(self.decoded or self.failures)

    def outcomes(self) -> list[Outcome]:
        """Make the pictures; returns the tasks that they complete, and those that failed.

        To be called once, in the order of the steps, on any one thread.
        """
        made = [
            candidates.collect(picture) if candidates else picture or Failure(row.task_key, "error", NOT_FINITE)
            for decoded, sets in self.decoded
            for row, candidates, picture in zip(decoded.rows, sets, decoded.pictures(), strict=True)
        ]
        return [*(outcome for outcome in made if outcome is not None), *self.failures]


def _picture(row: Row, pixels: np.ndarray, layout: list[float]) -> Picture:
    assert row.start is not None
    return Picture(
        row.task_key, row.task.seed, pixels, layout, row.bucket, row.seconds, row.began, row.start.prompt_tokens
    )
