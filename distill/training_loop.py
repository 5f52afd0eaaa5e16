"""A resumable training loop: progress bar, JSON log, atomic checkpoints, sample grids."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CHECKPOINT = "checkpoint.pt"


class Stateful(Protocol):
    """Anything whose whole state travels in a `state_dict`: modules, optimisers, schedules."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


class RandomStream:
    """A `torch.Generator` whose position is part of the checkpoint."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.generator.set_state(state_dict["state"])


def run(
    folder: Path,
    stateful: Mapping[str, Stateful],
    step: Callable[[int], dict[str, float]],
    steps: int,
    *,
    save_every: int = 200,
    log_every: int = 20,
    sample: Callable[[int], None] = lambda done: None,
) -> None:
    """Call `step(i)` for every i that the checkpoint in `folder` has not done yet, up to `steps`.

    `step` returns metrics; `log.jsonl` gets their mean over each `log_every` steps. After every
    `save_every` steps, and at the end, everything in `stateful` is checkpointed and `sample` draws
    a grid. A killed run goes on from its last checkpoint; SIGINT and SIGTERM let the step finish,
    write a checkpoint and raise KeyboardInterrupt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    first = load_checkpoint(checkpoint, stateful)
    sums: dict[str, float] = {}
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, open(folder / "log.jsonl", "a") as log, _signals_kept() as stop:
        bar = progress.add_task(folder.name, total=steps, completed=first)
        for index in range(first, steps):
            for name, value in step(index).items():
                sums[name] = sums.get(name, 0.0) + value
            done = index + 1
            progress.advance(bar)
            if done % log_every == 0:
                means = {name: round(value / log_every, 6) for name, value in sums.items()}
                line = {"step": done, "seconds": round(time.monotonic() - started, 1), **means}
                log.write(json.dumps(line) + "\n")
                log.flush()
                progress.update(bar, description=folder.name + " " + " ".join(f"{k} {v:.4g}" for k, v in means.items()))
                sums.clear()
            if done % save_every == 0 or done == steps:
                save_checkpoint(checkpoint, stateful, done)
                sample(done)
            if stop.is_set():
                save_checkpoint(checkpoint, stateful, done)
                raise KeyboardInterrupt(f"stopped after step {done}")


@contextmanager
def _signals_kept() -> Iterator[threading.Event]:
    """Within it SIGINT and SIGTERM only set the event; Python allows that on the main thread alone."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def save_checkpoint(path: Path, stateful: Mapping[str, Stateful], done: int) -> None:
    """Write everything or nothing: a kill or a full disk leaves the previous checkpoint whole."""
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        torch.save({"done": done, **{name: part.state_dict() for name, part in stateful.items()}}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_checkpoint(path: Path, stateful: Mapping[str, Stateful]) -> int:
    """Restore `stateful` from `path`; returns the number of steps done, 0 without a checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in stateful.items():
        part.load_state_dict(state[name])
    return state["done"]
