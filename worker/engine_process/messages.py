"""Messages between the worker and its engine's process, over a connection of multiprocessing. Without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.models import ImageTask, ModelCard
from worker.engine.outcomes import Measured, Outcome, PreviewImage

# To the engine


@dataclass(frozen=True)
class Add:
    """Tasks to make, by the keys that their outcomes are to carry."""

    tasks: Mapping[str, ImageTask]


@dataclass(frozen=True)
class Withdraw:
    """Take out the tasks of `keys`, or with None every task that has not begun; answered by `Withdrawn`."""

    keys: list[str] | None


@dataclass(frozen=True)
class Watch:
    """The jobs of which previews are wanted."""

    jobs: frozenset[str]


@dataclass(frozen=True)
class Backlog:
    """Tells whether more images wait in the queue than the engine has."""

    waits: bool


Request = Add | Withdraw | Watch | Backlog

# From the engine


@dataclass(frozen=True)
class Ready:
    """The engine serves what `card` says, by the version `torch` of PyTorch."""

    card: ModelCard
    torch: str


@dataclass(frozen=True)
class Changed:
    """The engine serves what `card` says from now on."""

    card: ModelCard


@dataclass(frozen=True)
class Withdrawn:
    """The keys of the tasks that a `Withdraw` took out, in the order of the requests."""

    keys: list[str]


@dataclass(frozen=True)
class Finished:
    """Tasks that a step finished, and those that failed."""

    outcomes: list[Outcome]


@dataclass(frozen=True)
class Shown:
    """Previews of unfinished images."""

    previews: list[PreviewImage]


@dataclass(frozen=True)
class Ended:
    """The engine could not start, or its thread failed, for this reason; nothing follows."""

    reason: str


Report = Ready | Changed | Withdrawn | Finished | Shown | Measured | Ended
