"""A set of prompts with a judge of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from distill.evaluation.pictures import PictureSet

Judge = Callable[[PictureSet, PictureSet], dict[str, Any]]
"""Pictures of a model and of its teacher → a section of the report."""


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
