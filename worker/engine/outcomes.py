"""Results of the engine: pictures, previews and failures, and the cost of a batch. Without torch."""

from dataclasses import dataclass

import numpy as np

from jobs.models import FailureReason, PromptTokens


@dataclass(frozen=True)
class PreviewImage:
    """The predicted image after `step` of `steps`: `pixels` uint8 [h, w, 3], at most 256 a side."""

    job_id: str
    index: int
    seed: int
    step: int
    steps: int
    pixels: np.ndarray


@dataclass(frozen=True)
class Picture:
    """A finished image: `pixels` uint8 [height, width, 3].

    `layout` is the latent descriptor for the diversity score, see jobs.diversity. `seconds` and `began` (Unix time) are
    by stage: queue, encode, denoise_step, decode. `work_s` is its share of the device's time.
    """

    key: str
    seed: int
    pixels: np.ndarray
    layout: list[float]
    bucket: int
    seconds: dict[str, float]
    began: dict[str, float]
    prompt_tokens: PromptTokens
    negative_tokens: PromptTokens | None
    work_s: float

    @property
    def stages(self) -> dict[str, tuple[float, float]]:
        """Begin and end of each stage, in Unix seconds; a stage of several steps ends where the next stage begins."""
        following = [*list(self.began.values())[1:], None]
        return {
            stage: (begin, begin + self.seconds[stage] if end is None else end)
            for (stage, begin), end in zip(self.began.items(), following, strict=True)
        }


@dataclass(frozen=True)
class FinishedSet:
    """The images of a diverse set, in the order of the answer."""

    key: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Failure:
    """A task that failed, and the reason."""

    key: str
    reason: FailureReason
    detail: str


Outcome = Picture | FinishedSet | Failure


@dataclass(frozen=True)
class Measured:
    """The cost of one batch in a stage (encode, denoise_step, decode).

    `rows` images with `padding` rows beside them took `seconds`; `cached` of them had a cached embedding.
    With CUDA graphs on, a denoising step was `replayed`, or `graph_miss` says why not. `gap` is the host's time between
    the step before and this one, in seconds; None when the engine had nothing to do in between.
    """

    stage: str
    rows: int
    padding: int
    seconds: float
    cached: int = 0
    replayed: bool = False
    graph_miss: str | None = None
    gap: float | None = None
