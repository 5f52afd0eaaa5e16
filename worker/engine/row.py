"""The rows of the engine."""

from dataclasses import dataclass, field

import torch

from jobs.models import ImageTask, PromptTokens
from jobs.queue.claims import SourceFiles
from worker.engine.scheduler import Candidate, Size
from worker.families.prompt_embeddings import PromptEmbedding
from worker.sampling.known_part import KnownPart


@dataclass(frozen=True)
class Start:
    """The inputs that a row has from its first step on; tensors are on the device.

    `step_noise` fp32 [draws − 1, C, h, w]: one draw for each step of a stochastic sampler, else empty. Under guidance
    `negative` is what it leads away from, and `scale` fp32 []. `negative_tokens` are those of the call's own negative
    prompt. `known` is the part of a picture that stays.
    """

    embedding: PromptEmbedding
    step_noise: torch.Tensor
    prompt_tokens: PromptTokens
    negative: PromptEmbedding | None = None
    negative_tokens: PromptTokens | None = None
    scale: torch.Tensor | None = None
    known: KnownPart | None = None


@dataclass(eq=False)
class Row:
    """An image that waits (`latents` is None) or is about to take `step`; `latents` fp32 [C, h, w] on the device.

    `owner` is the key of its set, if it belongs to one. `source` are the files of the picture that it begins from: it
    enters at the step whose noise level fits, and the steps before are left out. `pred_x0` holds the clean latents that
    its latest step predicted, `shown_step` is the latest step with a preview. `noise` fp32 [draws, C, h, w], on the
    host, is what was drawn for it before it begins. `bucket` is the batch size of its latest step. `seconds` is the
    time spent in each stage so far, `began` the Unix time at which each stage began. `work_s` is its share of the
    device's time, in seconds.
    """

    key: str
    task: ImageTask
    owner: str | None = None
    source: SourceFiles | None = None
    start: Start | None = None
    latents: torch.Tensor | None = None
    pred_x0: torch.Tensor | None = None
    noise: torch.Tensor | None = None
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

    def begin(self, start: Start, latents: torch.Tensor, step: int) -> None:
        """Enter at `step` with `latents`."""
        self.start, self.latents, self.step, self.shown_step = start, latents, step, step

    def advance(self, latents: torch.Tensor, pred_x0: torch.Tensor) -> None:
        """Take what a step made of it; the part that is known goes back to its place."""
        self.step += 1
        assert self.start is not None
        if known := self.start.known:
            latents, pred_x0 = known.put_back(latents, self.step), known.put_back_clean(pred_x0)
        self.latents, self.pred_x0 = latents, pred_x0

    def undo(self, step: int, latents: torch.Tensor | None, pred_x0: torch.Tensor | None) -> None:
        """Go back to before `step`, which failed, and to what the row had then."""
        self.step, self.latents, self.pred_x0 = step, latents, pred_x0

    def spend(self, stage: str, seconds: float, began: float) -> None:
        """Count `seconds` in a stage that began at `began`, a Unix time."""
        self.began.setdefault(stage, began)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
