"""The clock by which the API ends late calls."""

from dataclasses import dataclass


@dataclass
class Clock:
    """The seconds by which that clock is ahead of the real one."""

    ahead_s: float = 0.0
