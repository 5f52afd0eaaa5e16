"""One run of the mixture setting: everything that distinguishes one trained student from another."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from distill.method.dp_dmd import AnchorTarget, Hyperparameters
from distill.method.registry import METHODS
from worker.sampling.noise_schedule import shifted_grid

STUDENT_GRID = (1.0, 0.75, 0.5, 0.25, 0.0)
TEACHER_STEPS = 30
NOISE_SEEDS = (1, 2)
"""Seeds of the noise for measuring students and teacher, and for the teacher's histogram."""


@dataclass(frozen=True)
class Run:
    """One student, trained from several seeds at once.

    `k` and `lambda_` may be ranges: then K is drawn anew for each update, and λ goes from the first value to the
    second over the run. `anchor_guidance` is the teacher's on its way to the anchor, `guidance` elsewhere.

    Each student update follows `critic_updates` critic updates, which take `critic_rollouts` new batches of the
    student's samples in turn.
    """

    name: str
    method: str = "dp-dmd"
    dimension: int = 256
    updates: int = 200
    k: tuple[int, int] = (5, 5)
    lambda_: tuple[float, float] = (0.05, 0.05)
    detach: bool = True
    student_grid: tuple[float, ...] = STUDENT_GRID
    teacher_grid: tuple[float, ...] = shifted_grid(TEACHER_STEPS, 1.0)
    anchor_target: AnchorTarget = "average_velocity"
    guidance: float = 3.5
    anchor_guidance: float = 3.5
    critic_updates: int = 5
    critic_rollouts: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        implied = METHODS[self.method].implied
        object.__setattr__(self, "detach", implied.get("detach", self.detach))
        if "lambda" in implied:
            object.__setattr__(self, "lambda_", (implied["lambda"],) * 2)
        if "critic_updates" in implied:
            object.__setattr__(self, "critic_updates", implied["critic_updates"])
            object.__setattr__(self, "critic_rollouts", implied["critic_updates"])
        if self.critic_updates and self.critic_updates % self.critic_rollouts:
            raise ValueError(f"{self.name}: {self.critic_updates} critic updates from {self.critic_rollouts} rollouts")

        if self.seed in NOISE_SEEDS:
            raise ValueError(f"{self.name}: seed {self.seed} draws the noise that is measured; a world needs another")

    def at(self, update: int, generator: torch.Generator) -> Hyperparameters:
        """The losses' settings in student update `update`."""
        low, high = self.k
        k = int(torch.randint(low, high + 1, (), generator=generator))
        first, last = self.lambda_
        done = update / max(1, self.updates - 1)
        return Hyperparameters(
            student_grid=self.student_grid,
            teacher_grid=self.teacher_grid,
            anchor_k=k,
            lambda_=first + (last - first) * done,
            detach=self.detach,
            distribution_matching=self.method != "step1-regression",
            anchor_target=self.anchor_target,
        )

    def settings(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def through(level: float, before: int, after: int) -> tuple[float, ...]:
    """A teacher's grid that visits `level` after `before` even steps, and reaches 0 in `after` more."""
    down = torch.linspace(1, level, before + 1, dtype=torch.float64)[:-1].tolist()
    return (*down, *torch.linspace(level, 0, after + 1, dtype=torch.float64).tolist())
