"""Tasks that a worker holds, and what became of them."""

from dataclasses import dataclass

from jobs.models import ImageTask


@dataclass(frozen=True)
class Claim:
    """A task leased to this worker; ``deliveries`` counts how often it has been handed to any worker.

    ``taken_from`` is the worker that it was taken over from, ``attempts`` counts how often it was begun since.
    ``model_sha`` is the hash of the model that all images of its job are of, None while any may make them.
    """

    entry_id: str
    task: ImageTask
    deliveries: int
    taken_from: str | None = None
    attempts: int = 0
    model_sha: str | None = None

    @property
    def suspect(self) -> bool:
        """Return whether a worker that held it is gone, perhaps because of it."""
        return self.deliveries > 1


@dataclass(frozen=True)
class Settled:
    """The effect of a task's end: `images` of its job were settled now, none of them before.

    `completed` is the number of all images of the job if it is complete with these, else 0. With `other_model` nothing
    is settled, since the job is one of another model.
    """

    images: int
    completed: int
    other_model: bool = False
