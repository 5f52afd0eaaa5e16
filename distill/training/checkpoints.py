"""Checkpoints of a run: directories of safetensors and one JSON file, written atomically.

`checkpoints/step-000050/` holds a safetensors file for each part and `state.json`: the number of steps done, the run's
settings, and the parts' state other than tensors. The last two checkpoints are kept.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import distributed, nn

from distill.training import sharding

KEPT = 2
FOLDER = "checkpoints"
STATE = "state.json"

Own = TypeVar("Own")


class Stateful(Protocol):
    """An object whose whole state is in its `state_dict`, such as a module or an optimiser."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


class OtherSettingsError(ValueError):
    """A run is resumed with other settings than it was started with."""


class NotFiniteError(ValueError):
    """Training has come to numbers that are infinite or none."""


def steps_of(run: Path, folder_name: str = FOLDER) -> list[int]:
    """The steps after which `run` has a checkpoint, in ascending order."""
    found = (path.parent.name for path in (run / folder_name).glob(f"step-*/{STATE}"))
    return sorted(int(name.removeprefix("step-")) for name in found)


def save(
    run: Path,
    stateful: Mapping[str, Stateful],
    done: int,
    settings: Mapping[str, Any] | None = None,
    rotate: Callable[[Path], list[int]] = lambda run: steps_of(run)[:-KEPT],
    folder_name: str = FOLDER,
) -> None:
    """Write a checkpoint atomically: a kill or a full disk leaves the previous one intact.

    Every rank must call it. The first one writes, gathering sharded parts one after the other, and deletes those that
    `rotate` names afterwards. Raises OSError on all ranks when the disk is full, and NotFiniteError, with nothing
    written, for a part that is not finite.
    """
    folder = run / folder_name
    partial, whole = folder / f"partial-{done:06}", folder / f"step-{done:06}"
    parts: dict[str, Any] = {}

    def prepare() -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)

    def write(name: str, tensors: dict[str, torch.Tensor]) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise NotFiniteError(f"checkpoint after step {done}: {name} is not finite, so that it is not written")
        try:
            save_file(tensors, partial / f"{name}.safetensors")
        except SafetensorError as error:  # which wraps every error of the operating system
            raise OSError(f"checkpoint after step {done}: {name} cannot be written: {error}") from error
        _flush(partial / f"{name}.safetensors")

    def finish() -> None:
        (partial / STATE).write_text(json.dumps({"done": done, "settings": settings or {}, "parts": parts}))
        _flush(partial / STATE)
        _flush(partial)
        shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed later and has come here again
        os.replace(partial, whole)
        _flush(folder)
        _rotate(folder, rotate(run))

    try:
        _on_first_rank(prepare)
        for name, part in stateful.items():
            tensors: dict[str, torch.Tensor] = {}
            parts[name] = _without_tensors(part.state_dict(), tensors)
            _on_first_rank(lambda name=name, tensors=tensors: write(name, tensors))  # type: ignore[misc]
        _on_first_rank(finish)
    except BaseException:
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def load(
    run: Path,
    stateful: Mapping[str, Stateful],
    settings: Mapping[str, Any] | None = None,
    step: int | None = None,
    folder_name: str = FOLDER,
) -> int:
    """Restore `stateful` from the last checkpoint of `run`, or from that after `step`; returns the number of steps
    done, 0 without a checkpoint.

    Raises OtherSettingsError when `settings` differ from those of the checkpoint; the message names each difference.
    """
    steps = steps_of(run, folder_name)
    if not steps:
        return 0
    folder = run / folder_name / f"step-{steps[-1] if step is None else step:06}"
    state = json.loads((folder / STATE).read_text())
    _refuse_others(state["settings"], settings or {})
    for name, part in stateful.items():
        _restore(part, _with_tensors(state["parts"][name], load_file(folder / f"{name}.safetensors")))
    return state["done"]


def rank() -> int:
    """The rank of this process; 0 when it trains alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def of_all_ranks(own: Own) -> list[Own]:
    """Gather `own` of every rank; every rank must call it."""
    if not distributed.is_initialized():
        return [own]
    gathered = [own] * distributed.get_world_size()
    distributed.all_gather_object(gathered, own)
    return gathered


def _refuse_others(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [name for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]
    if differing:
        changes = "; ".join(f"{name} was {before[name]} and is {now[name]}" for name in differing)
        raise OtherSettingsError(f"this run was started with other settings: {changes}")


def _on_first_rank(work: Callable[[], None]) -> None:
    """Call `work` on the first rank while the others wait. An OSError or ValueError there is raised on all ranks."""
    failed: list[OSError | ValueError | None] = [None]
    if rank() == 0:
        try:
            work()
        except (OSError, ValueError) as error:
            failed = [error]
    if distributed.is_initialized():
        distributed.broadcast_object_list(failed, src=0)
    if failed[0] is not None:
        raise failed[0]


def _restore(part: Stateful, state: Any) -> None:
    if isinstance(part, nn.Module):
        sharding.load_module(part, state)
    elif isinstance(part, torch.optim.Optimizer):
        sharding.load_optimizer(part, state)
    else:
        part.load_state_dict(state)


def _rotate(folder: Path, old: list[int]) -> None:
    """Delete checkpoints, renaming them first, so that a half-deleted one is never read."""
    for done in old:
        os.replace(folder / f"step-{done:06}", folder / f"old-{done:06}")
    for leftover in (*folder.glob("old-*"), *folder.glob("partial-*")):
        shutil.rmtree(leftover, ignore_errors=True)


def _without_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Convert `value` to JSON types. Tensors move to `tensors`; types that JSON lacks become {"kind": content}."""
    if isinstance(value, torch.Tensor):
        # Cloned, since safetensors refuses tensors that share memory, as tied weights do.
        number, gathered = str(len(tensors)), sharding.whole(value.detach())
        tensors[number] = gathered.cpu().contiguous().clone() if rank() == 0 else torch.empty(0)
        return {"tensor": number}
    if isinstance(value, Mapping):
        return {"dict": [[key, _without_tensors(content, tensors)] for key, content in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_without_tensors(content, tensors) for content in value]}
    return [_without_tensors(content, tensors) for content in value] if isinstance(value, list) else value


def _with_tensors(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_with_tensors(content, tensors) for content in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_with_tensors(part, tensors) for part in content)
    return {key: _with_tensors(part, tensors) for key, part in content}


def _flush(path: Path) -> None:
    """Write a file's bytes, or a directory's entries, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
