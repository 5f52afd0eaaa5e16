"""The clock by which the API ends late calls."""

from dataclasses import dataclass


@dataclass
class Clock:
    """How far the clock by which the API ends late calls is ahead of the real one."""

    ahead_s: float = 0.0
