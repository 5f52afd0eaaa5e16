"""The placement of workers: the model that each serves, and its GPU."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.models import model_name


@dataclass(frozen=True)
class Placement:
    """A worker of `model` that sees `gpu` alone, or what the environment shows it; 0 is no port of metrics."""

    model: str
    gpu: str | None
    metrics_port: int

    @property
    def name(self) -> str:
        return model_name(self.model)


def placements(
    models: Sequence[str], gpus: Sequence[str], workers: Literal["auto"] | int, metrics_port: int
) -> list[Placement]:
    """Deal out models and GPUs to `workers`, each in turn; "auto" is a worker for each GPU and for each model.

    A model that stands there twice gets twice as many. Worker i has the port `metrics_port` + i, if that is not 0.
    Raises ValueError when a model would be left without a worker, and when two would be served under one name.
    """
    names = {os.path.realpath(model): model_name(model) for model in models}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two models would be served under one name: {', '.join(names.values())}")
    number = max(len(models), len(gpus)) if workers == "auto" else workers
    if number < len(models):
        raise ValueError(f"FOURSTEP_WORKERS is {number}, and {len(models)} models need a worker each")
    return [
        Placement(
            models[i % len(models)],
            gpus[i % len(gpus)] if gpus else None,
            metrics_port and metrics_port + i,
        )
        for i in range(number)
    ]
