"""A distillation run as a folder: start it, resume it, export its student.

The folder holds the configuration, checkpoints, log and sample grids.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from torch import distributed
from torch.optim.swa_utils import AveragedModel

from distill import config as configuration
from distill import export as exporting
from distill import teacher_pipeline
from distill.config import DistillConfig
from distill.training import best_students, checkpoints, roles
from distill.training.trainer import Trainer
from worker.families import registry


def start(config_file: Path, run: Path, out: Path | None) -> None:
    """Start a run in the folder `run`, and export the student to `out`. Raises ValueError when `run` holds a run."""
    if checkpoints.steps_of(run):
        raise ValueError(f"--run: {run} already holds a run; resume it with `fourstep distill resume --run {run}`")
    config = configuration.load(config_file)
    if os.environ.get("RANK", "0") == "0":  # the process group does not exist yet
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False))
    _train(config, run, out)


def resume(run: Path, out: Path | None) -> None:
    """Resume the run in `run`. Raises ValueError when its configuration differs from the one it was started with."""
    _train(_config_of(run), run, out)


def export(run: Path, out: Path, dtype: str, lora: bool = False, checkpoint: str = "last") -> None:
    """Export the averaged student of a checkpoint to `out`: a servable folder or, with `lora`, a LoRA file.

    `checkpoint` is "last", "best" (of the students that the run keeps) or the number of a step.
    """
    config = _config_of(run)
    folder, step = _place(run, checkpoint)
    pipeline = teacher_pipeline.load(config.teacher, text_encoders=False)
    family = registry.of(pipeline)
    network = getattr(pipeline, family.denoiser).float()
    rank, targets = config.lora_rank, family.lora_targets
    average = AveragedModel(roles.attach(network, "student", rank, targets) if rank else network)
    checkpoints.load(run, {"average": average}, step=step, folder_name=folder)
    write = exporting.export_lora if lora else exporting.export
    write(config, average.module, out, _dtype(dtype))


def _place(run: Path, checkpoint: str) -> tuple[str, int]:
    """The folder of `run` and the step of the student that `checkpoint` names. Raises ValueError when there is none."""
    saved, students = checkpoints.steps_of(run), best_students.ranked(run)
    if not saved:
        raise ValueError(f"--run: {run} holds no checkpoint yet")
    if checkpoint == "last":
        return checkpoints.FOLDER, saved[-1]
    if checkpoint == "best" and students:
        return best_students.FOLDER, students[0]
    for folder, steps in ((checkpoints.FOLDER, saved), (best_students.FOLDER, students)):
        if checkpoint in map(str, steps):
            return folder, int(checkpoint)
    known = ", ".join(map(str, sorted({*saved, *students})))
    raise ValueError(f"--checkpoint: {checkpoint} is none of last, best, {known}; see keep_students")


def _train(config: DistillConfig, run: Path, out: Path | None) -> None:
    with denormals_flushed():
        trainer = Trainer(config, run)
        trainer.train()
    if out is not None and checkpoints.rank() == 0:
        export(run, out, "bfloat16")
    # A process that exits while others still communicate with it crashes them, or aborts itself.
    trainer.accelerator.wait_for_everyone()
    # Dropping the last reference to the process group waits for its threads, which may wait for the interpreter lock.
    # Python's own handle releases the lock meanwhile; the networks' wrappers do not (one run of thirty hung), so they
    # are dropped first.
    group = distributed.group.WORLD if distributed.is_initialized() else None
    trainer.accelerator.end_training()
    del trainer
    del group


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to zero, for the duration and the whole process: they slow a CPU many times over."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _config_of(run: Path) -> DistillConfig:
    if not (run / "config.yaml").is_file():
        raise ValueError(f"--run: {run} is no run folder (it has no config.yaml)")
    return configuration.load(run / "config.yaml")


def _dtype(name: str) -> torch.dtype:
    known = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    if name not in known:
        raise ValueError(f"--dtype: {name!r} is none of {', '.join(known)}")
    return known[name]
