"""The rows of the engine."""

from dataclasses import dataclass, field

import torch

from jobs.models import ImageTask, PromptTokens
from worker.engine.scheduler import Candidate, Size
from worker.families.prompt_embeddings import PromptEmbedding


@dataclass(frozen=True)
class Start:
    """The inputs that a row has from its first step on; tensors are on the device.

    `step_noise` fp32 [draws − 1, C, h, w]: one draw for each step of a stochastic sampler, else empty.
    """

    embedding: PromptEmbedding
    step_noise: torch.Tensor
    prompt_tokens: PromptTokens


@dataclass(eq=False)
class Row:
    """An image that waits (`latents` is None) or has taken `step` steps; `latents` fp32 [C, h, w] on the device.

    `owner` is the key of its set, if it belongs to one. `pred_x0` holds the clean latents that its latest step
    predicted, `shown_step` is the latest step with a preview. `bucket` is the batch size of its latest step. `seconds`
    is the time spent in each stage so far, `began` the Unix time at which each stage began. `work_s` is its share of
    the device's time, in seconds.
    """

    key: str
    task: ImageTask
    owner: str | None = None
    start: Start | None = None
    latents: torch.Tensor | None = None
    pred_x0: torch.Tensor | None = None
    step: int = 0
    shown_step: int = 0
    bucket: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    work_s: float = 0.0
    _candidate: Candidate | None = None

    @property
    def task_key(self) -> str:
        """The key under which its task was added to the engine."""
        return self.owner or self.key

    @property
    def strict(self) -> bool:
        return self.task.mode == "strict"

    @property
    def size(self) -> Size:
        return self.task.height, self.task.width

    def candidate(self, steps: int, strict: bool) -> Candidate:
        """Describe the row to the scheduler, which only knows how many of `steps` are left; a `strict` one needs the
        largest batch."""
        left = steps - self.step
        known = self._candidate
        if known is None or (known.steps_left, known.strict) != (left, strict):
            task = self.task
            known = Candidate(self.key, task.job_id, self.size, task.created, task.deadline, left, strict)
            self._candidate = known
        return known

    def spend(self, stage: str, seconds: float, began: float) -> None:
        """Count `seconds` in a stage that began at `began`, a Unix time."""
        self.began.setdefault(stage, began)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
