"""Diverse sets: all candidates take the first step, and those whose pred_x0 are farthest apart go on."""

import torch
from torch.nn import functional as F

from jobs.models import ImageTask
from jobs.queue.claims import SourceFiles
from worker.engine.outcomes import Failure, FinishedSet, Picture
from worker.engine.row import Row

CHOICE_GRID = 8


class CandidateSet:
    """The rows of one set: one for each candidate until the choice, then one for each image of the answer.

    `failed` is set when one of its pictures failed, or its task.
    """

    def __init__(self, key: str, task: ImageTask, source: SourceFiles | None = None) -> None:
        assert task.select is not None
        self._key = key
        self._images = task.select.images
        self._chosen = False
        self.failed = False
        self._pictures: list[Picture] = []
        self.rows = [
            Row(f"{key}/{number}", task.model_copy(update={"seed": task.seed + number, "select": None}), key, source)
            for number in range(task.select.candidates)
        ]

    def holds(self, row: Row) -> bool:
        """Return whether `row` has to wait for the choice."""
        return not self._chosen and row.pred_x0 is not None

    def choose(self) -> list[Row]:
        """Choose, once every candidate has taken its first step; returns the rows that drop out."""
        if self._chosen or any(row.pred_x0 is None for row in self.rows):
            return []
        pred_x0 = torch.stack([row.pred_x0 for row in self.rows if row.pred_x0 is not None])
        kept = sorted(farthest_apart(latent_descriptors(pred_x0, CHOICE_GRID), self._images))
        dropped = [row for number, row in enumerate(self.rows) if number not in kept]
        self.rows = [self.rows[number] for number in kept]
        for index, row in enumerate(self.rows):
            row.task = row.task.model_copy(update={"index": row.task.index + index})
            row.work_s += sum(other.work_s for other in dropped) / len(kept)
        self._chosen = True
        return dropped

    def collect(self, picture: Picture | Failure) -> FinishedSet | Failure | None:
        """Add one picture, or the failure of one; returns the set, in the order of its seeds, once it is complete, and
        its first failure."""
        if self.failed:
            return None
        if isinstance(picture, Failure):
            self.failed = True
            return picture
        self._pictures.append(picture)
        if len(self._pictures) < self._images:
            return None
        return FinishedSet(self._key, sorted(self._pictures, key=lambda picture: picture.seed))


def farthest_apart(vectors: torch.Tensor, count: int) -> list[int]:
    """Return positions of `count` of the unit `vectors` [N, D], chosen for a large mean cosine distance.

    The choice is greedy: the two farthest apart come first, then always the one with the largest sum of distances
    to those chosen. Equal vectors give equal choices on every device. Vectors that are not finite are chosen last.
    """
    unit = vectors.double().cpu()
    distance = (1 - unit @ unit.T).nan_to_num(-2.0)
    chosen = [int(distance.max(1).values.argmax())]
    while len(chosen) < count:
        total = distance[chosen].sum(0)
        total[chosen] = -torch.inf
        chosen.append(int(total.argmax()))
    return chosen


def latent_descriptors(latents: torch.Tensor, grid: int) -> torch.Tensor:
    """Average latents fp32 [B, C, h, w] over `grid` × `grid` cells, less the mean of all: unit vectors [B, C·grid²]."""
    cells = F.adaptive_avg_pool2d(latents, grid).flatten(1)
    return F.normalize(cells - cells.mean(1, keepdim=True), dim=1)
