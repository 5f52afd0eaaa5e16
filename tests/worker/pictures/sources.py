"""Tasks that begin from a picture, and running them."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from jobs.models import ImageTask
from jobs.queue.claims import SourceFiles
from jobs.queue.pictures.sources import Source
from tests.worker.tasks import image_task
from worker.engine.engine import Engine
from worker.engine.outcomes import FinishedSet, Picture

Sourced = tuple[ImageTask, SourceFiles]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def from_picture(
    pixels: np.ndarray, strength: float, mask: np.ndarray | None = None, prompt: str = "sun", seed: int = 0, **more: Any
) -> Sourced:
    """A task that begins from `pixels`, uint8 [H, W, 3], with its files; `mask` is uint8 [H, W]."""
    files = SourceFiles(png(pixels), None if mask is None else png(mask))
    return image_task(prompt, seed, source=Source(files, strength).picture, **more), files


def drawn(engine: Engine, sourced: Mapping[str, Sourced]) -> dict[str, Any]:
    """The outcomes of tasks that join at once; none may fail."""
    engine.add({key: task for key, (task, _) in sourced.items()}, {key: files for key, (_, files) in sourced.items()})
    outcomes = {}
    while engine.busy:
        outcomes |= {outcome.key: outcome for outcome in engine.step()}
    assert all(isinstance(outcome, Picture | FinishedSet) for outcome in outcomes.values()), outcomes
    return outcomes


def square_mask(size: int = 64) -> np.ndarray:
    """White in the middle."""
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : -size // 4, size // 4 : -size // 4] = 255
    return mask
