"""Figures as lines of JSON, written one by one: a run that is cut keeps what it has, and the next one goes on."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from worker.device.accelerator import is_out_of_memory

Figure = dict[str, Any]


class Figures:
    """The file FIGURES.jsonl in `folder`, to which figures are added until `seconds` have passed."""

    def __init__(self, folder: Path, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / FILE
        self._ends = time.monotonic() + seconds
        self.left: list[str] = []
        """The figures that no time was left for."""
        kept = read(self._file)
        self._done = {_key(figure) for figure in kept}
        if self._file.exists():  # without a line that was cut
            self._file.write_text("".join(json.dumps(figure) + "\n" for figure in kept))

    def add(self, name: str, measure: Callable[[], Figure], **about: Any) -> None:
        """Measure the figure `name` of what `about` says, and write it; nothing if it is there already.

        What cannot be measured is a line with the error. Raises torch.AcceleratorError when the device has failed;
        the next run goes on behind that figure.
        """
        if _key({"figure": name, **about}) in self._done:
            return
        if time.monotonic() > self._ends:
            self.left.append(" ".join([name, *map(str, about.values())]))
            return
        began = time.perf_counter()
        try:
            found, lost = measure(), None
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
            lost = error if _is_lost(error) else None
        seconds = round(time.perf_counter() - began, 2)
        with self._file.open("a") as file:
            line = json.dumps({"figure": name, **about, **found, "seconds": seconds})
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(line, flush=True)
        if lost is not None:
            raise lost


FILE = "figures.jsonl"


def read(file: Path) -> list[Figure]:
    """Return the figures in `file`, without a last line that was cut; none where there is no file."""
    if not file.exists():
        return []
    whole = file.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def _key(figure: Figure) -> tuple[Any, ...]:
    """The identity of a figure: its name and what it is about."""
    return tuple(figure.get(name) for name in ("figure", "model", "size", "rows", "how"))


def _is_lost(error: Exception) -> bool:
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
