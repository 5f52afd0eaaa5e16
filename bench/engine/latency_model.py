"""A worker whose network only sleeps, with real queue and scheduler: `python -m bench.engine.latency_model`.

A step of a batch takes `--fixed` + `--per-row` × rows seconds, asleep, so that several workers share one machine
without disturbing each other. As on a GPU, it is given to the device at once, and the host waits for its end.
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TextIO

import torch
import typer

from jobs.models import PromptTokens
from jobs.sampling_contract import SamplingContract
from jobs.settings import WorkerSettings
from worker import process
from worker.families.prompt_embeddings import PromptEmbedding
from worker.model_folder.loading import LoadedModel
from worker.sampling import step_table as sampler
from worker.sampling.guidance import classifier_free_guidance

NAME = "latency-model"
CONTRACT = SamplingContract(
    method="none", family="sd3", prediction="flow", steps=4, sigmas=[1.0, 0.75, 0.5, 0.25, 0.0], sizes=[(64, 64)]
)


class SleepingNetwork:
    """The interface of worker.families.network, with zeros for everything."""

    device, dtype = torch.device("cpu"), torch.float32
    guide, text_lengths, takes_pictures = staticmethod(classifier_free_guidance), (), False
    asynchronous = True

    def __init__(self, fixed_s: float, per_row_s: float, stamps: TextIO | None = None) -> None:
        """To `stamps` goes a line of JSON for every prediction: begin and end, in seconds of time.perf_counter, and
        rows."""
        self._fixed_s, self._per_row_s, self._stamps = fixed_s, per_row_s, stamps
        self._running: tuple[float, int] | None = None
        self._ends = 0.0
        self._latest: tuple[float, float, int] | None = None

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 1, 1, 1

    def encode(self, prompts: Sequence[str]) -> list[PromptEmbedding]:
        return [PromptEmbedding(torch.zeros(1, 1), torch.zeros(1)) for _ in prompts]

    def prompt_tokens(self, prompt: str) -> PromptTokens:
        return PromptTokens(total=1, read=1)

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: PromptEmbedding) -> torch.Tensor:
        self._running = time.perf_counter(), len(latents)
        self._ends = self._running[0] + self._fixed_s + self._per_row_s * len(latents)
        return torch.zeros_like(latents)

    @property
    def idle(self) -> bool:
        return self._running is None or time.perf_counter() >= self._ends

    def wait(self) -> None:
        if self._running is None:
            return
        (began, rows), self._running = self._running, None
        if self._stamps is not None and self._latest:  # of the prediction before, so that the writing is in no gap
            self._stamps.write(json.dumps(self._latest) + "\n")
        time.sleep(max(0.0, self._ends - time.perf_counter()))
        self._latest = began, time.perf_counter(), rows

    def seal(self) -> None:
        """Nothing is compiled."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(latents), 3, *CONTRACT.sizes[0])


def sleeping_model(fixed_s: float, per_row_s: float, stamps: TextIO | None = None) -> LoadedModel:
    """A model of four steps, each of which takes `fixed_s` + `per_row_s` × rows seconds; see SleepingNetwork."""
    network = SleepingNetwork(fixed_s, per_row_s, stamps)
    return LoadedModel(NAME, "0" * 64, CONTRACT, sampler.from_contract(CONTRACT), network)  # type: ignore[arg-type]


def main(
    fixed: Annotated[float, typer.Option(help="seconds of every step")],
    per_row: Annotated[float, typer.Option(help="seconds of every row of its bucket")],
    stamps: Annotated[Path | None, typer.Option(help="file for begin, end and rows of each step, as JSON")] = None,
) -> None:
    model = sleeping_model(fixed, per_row, stamps.open("w", buffering=1) if stamps else None)
    raise SystemExit(
        asyncio.run(process.run(WorkerSettings(), os.environ["FOURSTEP_REDIS_URL"], load_model=lambda *_: model))
    )


if __name__ == "__main__":
    typer.run(main)
