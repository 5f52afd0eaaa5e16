"""A resumable training loop: progress bar, telemetry, checkpoints, sample grids."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from torch import distributed
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from distill.training import checkpoints
from distill.training.checkpoints import Stateful
from distill.training.telemetry import Telemetry


class RandomStream:
    """A `torch.Generator` on `device`, whose state on every rank is part of the checkpoint."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        return {"states": checkpoints.of_all_ranks(self.generator.get_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore this rank's state. Raises ValueError when the number of ranks has changed."""
        states = state_dict["states"]
        ranks = distributed.get_world_size() if distributed.is_initialized() else 1
        if len(states) != ranks:
            raise ValueError(f"this run was started with {len(states)} processes and cannot resume with {ranks}")
        self.generator.set_state(states[checkpoints.rank()])


class _Means:
    """Sums of the metrics since the last line of the log; checkpointed, so that a resumed run logs the same lines."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take(self, count: int) -> dict[str, float]:
        means = {name: round(value / count, 6) for name, value in self.sums.items()}
        self.sums.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        return dict(self.sums)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sums = dict(state_dict)


class _GlobalRandomness:
    """torch's global generator, for code that draws from it implicitly."""

    def state_dict(self) -> dict[str, Any]:
        return {"state": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        torch.set_rng_state(state_dict["state"])


def run(
    folder: Path,
    stateful: Mapping[str, Stateful],
    step: Callable[[int], dict[str, float]],
    steps: int,
    *,
    save_every: int = 200,
    sample_every: int | None = None,
    log_every: int = 20,
    sample: Callable[[int], Mapping[str, float] | None] = lambda done: None,
    settings: Mapping[str, Any] | None = None,
    samples: int = 1,
) -> None:
    """Call `step(i)` for every i from the last checkpoint in `folder` up to `steps`.

    `step` returns metrics; `log.jsonl` and TensorBoard get their mean over each `log_every` steps. After every
    `save_every` steps, and at the end, everything in `stateful` is checkpointed; after every `sample_every`, by default
    as many, and at the end, `sample` draws `grid-STEP.png`, and the metrics that it returns are a log line of their
    own. A killed run resumes from its last checkpoint to the same bits. SIGINT and SIGTERM say so at once, let the step
    finish, write a checkpoint and raise KeyboardInterrupt. Every rank must call it; the first one writes. Without a
    terminal for the progress bar, a line for each `log_every` steps is printed: the speed, in the `samples` that each
    step learns from, and the hour at which this pace ends.

    Raises checkpoints.OtherSettingsError when `settings` differ from those of the checkpoint, and
    checkpoints.NotFiniteError after a step with a metric that is not finite, of which nothing is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    means = _Means()
    parts = {**stateful, "means": means, "global_randomness": _GlobalRandomness()}
    first = checkpoints.load(folder, parts, settings)
    started = time.monotonic()
    writes = checkpoints.rank() == 0
    progress = _bar(writes)

    def say(line: str) -> None:
        if writes:
            progress.console.print(line, soft_wrap=True)

    with progress, closing(Telemetry(folder, first, writes=writes)) as telemetry, _signals_kept(say) as stop:
        bar = progress.add_task(folder.name, total=steps, completed=first, shown="")
        for index in range(first, steps):
            done = index + 1
            metrics = step(index)
            _refuse_not_finite(folder, done, metrics)
            means.add(metrics)
            progress.advance(bar)
            if done % log_every == 0:
                logged = means.take(log_every)
                telemetry.scalars(done, time.monotonic() - started, logged)
                shown = " ".join(f"{name} {value:.4g}" for name, value in logged.items())
                progress.update(bar, shown=shown)
                if writes and not progress.console.is_terminal:
                    pace = (done - first) / (time.monotonic() - started)
                    print(_line(folder.name, done, steps, pace, samples, shown), flush=True)
            stopped = any(checkpoints.of_all_ranks(stop.is_set()))
            if done % save_every == 0 or done == steps or stopped:
                progress.update(bar, description=f"{folder.name}: writing a checkpoint")
                checkpoints.save(folder, parts, done, settings)
            if done % (sample_every or save_every) == 0 or done == steps:
                progress.update(bar, description=f"{folder.name}: drawing samples")
                if measured := sample(done):
                    telemetry.scalars(done, time.monotonic() - started, measured)
                telemetry.grid(done)
            progress.update(bar, description=folder.name)
            if stopped:
                raise KeyboardInterrupt(f"stopped after step {done}")


def _bar(writes: bool) -> Progress:
    """A bar with what is being done, and the last metrics as far as the terminal's width goes."""
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    text, metrics = (
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[shown]}", markup=False, table_column=rest),
    )
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (SpinnerColumn(), text, BarColumn(20), MofNCompleteColumn(), *times, metrics)
    # A console of its own: the shared one keeps the terminal that it was first made for.
    return Progress(*columns, console=Console(), disable=not writes, expand=True)


def _line(name: str, done: int, steps: int, pace: float, samples: int, shown: str) -> str:
    """One line about a run of `steps` that makes `pace` of them a second."""
    now = datetime.now()
    left = timedelta(seconds=(steps - done) / pace)
    return (
        f"{now:%H:%M:%S} {name} {done}/{steps} {shown}, {pace * samples:.1f} samples/s, "
        f"{left.total_seconds() / 3600:.2f} h left, ends {now + left:%d %b %H:%M}"
    )


def _refuse_not_finite(folder: Path, done: int, metrics: Mapping[str, float]) -> None:
    if bad := [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]:
        kept = checkpoints.steps_of(folder)
        last = f"the last checkpoint, after step {kept[-1]}, is kept" if kept else "there is no checkpoint yet"
        raise checkpoints.NotFiniteError(f"step {done}: {', '.join(bad)}; training stops, and {last}")


def update(loss: torch.Tensor, optimizer: Optimizer, schedule: LRScheduler, clip: float = math.inf) -> float:
    """Take one step of `optimizer` and `schedule` down `loss`; returns the gradient's norm, cut to `clip` for it."""
    loss.backward()
    learners = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(learners, clip)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
    return norm.item()


@contextmanager
def _signals_kept(say: Callable[[str], None]) -> Iterator[threading.Event]:
    """Let SIGINT and SIGTERM only set the event, for the duration; `say` gets a line about the first of them.

    Outside the main thread signals stay as they are.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def keep(number: int, _: object) -> None:
        if not stop.is_set():
            stop.set()
            line = f"{signal.Signals(number).name}: the run stops after this update, with a checkpoint"
            # On a thread of its own: here it may have interrupted the writing of another line.
            threading.Thread(target=say, args=[line]).start()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, keep) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
