"""Metrics of a training run, as lines of JSON and for TensorBoard."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"
EVENTS = "tensorboard"


class Telemetry:
    """Write metrics to `folder`/log.jsonl and `folder`/tensorboard; write nothing where `writes` is False.

    A run that resumes after step `first` drops the lines that a killed one had written about later steps.
    """

    def __init__(self, folder: Path, first: int, *, writes: bool = True) -> None:
        self.folder = folder
        self.events: SummaryWriter | None = None
        if writes:
            _drop_lines_after(folder / LOG, first)
            self.events = SummaryWriter(folder / EVENTS, purge_step=first + 1)
        self.log = open(folder / LOG if writes else os.devnull, "a")  # noqa: SIM115

    def scalars(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Write the `metrics` of `step`, reached `seconds` after this process began to train."""
        self.log.write(json.dumps({"step": step, "seconds": round(seconds, 1), **metrics}) + "\n")
        self.log.flush()
        if self.events:
            for name, value in metrics.items():
                self.events.add_scalar(name, value, step)

    def grid(self, step: int) -> None:
        """Add the sample grid of `step` to TensorBoard, if the run has drawn one as `grid-STEP.png`."""
        path = self.folder / f"grid-{step:06}.png"
        if self.events and path.is_file():
            with Image.open(path) as image:
                self.events.add_image("grid", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self.log.close()
        if self.events:
            self.events.close()


def _drop_lines_after(log: Path, done: int) -> None:
    """Drop the lines about steps after `done`, and a line that was cut off."""
    if log.exists():
        lines = log.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done]
        if kept != lines:
            log.write_text("".join(kept))
