"""A set of prompts with a judge of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from distill.evaluation.measuring import Read


@dataclass(frozen=True)
class Judge:
    """`read` says of pictures what `report` needs: that of a model and of its teacher, float32 [P, R, D] each → a
    section of the report. `name` tells the networks that read from others."""

    name: str
    read: Read
    report: Callable[[torch.Tensor, torch.Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Benchmark:
    """Prompts to evaluate on, with a judge of the pictures.

    `groups` name ranges of `prompts` whose diversity is reported separately. `judge` makes the report's section `name`;
    without a judge there is none.
    """

    name: str
    prompts: tuple[str, ...]
    groups: Mapping[str, slice] = field(default_factory=lambda: {"all": slice(None)})
    judge: Judge | None = None
