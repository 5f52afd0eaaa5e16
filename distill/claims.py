"""Work that several processes share through a folder, on one machine or on several that share the folder.

A process holds a lock file while it works at an item. A process that dies lets go of it, and another takes the item.
"""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.progress import track

Item = TypeVar("Item")


def claimed(
    folder: Path, items: Sequence[Item], name: Callable[[Item], str], done: Callable[[Item], bool], description: str
) -> Iterator[Item]:
    """Yield, one at a time, those of `items` that are not `done` and that no other process works at.

    First what nobody works at, then what others did: all items are done at the end, whoever did them. `name` tells
    items apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for wait in (False, True):
        for item in track(items, description, transient=True, disable=wait):
            if done(item):
                continue
            with alone(folder / f"claim-{name(item)}", wait=wait) as mine:
                if mine and not done(item):
                    yield item
    for item in items:
        (folder / f"claim-{name(item)}").unlink(missing_ok=True)


@contextmanager
def alone(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`; yields False, without `wait`, when another process holds it."""
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
