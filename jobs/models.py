"""The records stored in Redis or sent over it: tasks, results, model cards, leases and the state of a job."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from jobs.records.wire_model import SCHEMA_VERSION as SCHEMA_VERSION
from jobs.records.wire_model import UnreadableRecordError as UnreadableRecordError
from jobs.records.wire_model import WireModel as WireModel

ImageFormat = Literal["png", "jpeg", "webp"]
Mode = Literal["fast", "strict"]
FailureReason = Literal["expired", "error", "cancelled", "refused"]
GivenUpReason = Literal["expired", "cancelled"]
JobStatus = Literal["queued", "running", "completed", "failed", "cancelled", "expired"]

MAX_SEED = 2**63 - 1

# Seconds that an asynchronous job may wait for a worker.
LONGEST_WAIT_S = 7 * 24 * 3600.0

# A model's name becomes the hash tag of its Redis keys: no braces, no spaces.
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]


def model_name(model: str) -> str:
    """The name to serve `model` under: a folder's own name, or the id of a hub model, in characters that keys allow."""
    name = Path(model).resolve().name if Path(model).is_dir() else model
    return re.sub(r"[^A-Za-z0-9._/-]", "-", name).lstrip("-._/")[:128] or "model"


class DiverseSet(WireModel):
    """Choose the ``images`` that are farthest apart among ``candidates`` with consecutive seeds."""

    images: int = Field(ge=1)
    candidates: int = Field(ge=1)


class SourcePicture(WireModel):
    """The picture that an image begins from, and perhaps the mask of what is painted anew in it.

    Both are PNG files of the image's size, kept beside the job under their SHA-256 (hex): the ``image`` in RGB, the
    ``mask`` in grey, where white is painted anew. A ``strength`` of 0 leaves the picture, 1 leaves nothing of it.
    """

    image: str
    mask: str | None = None
    strength: float = Field(ge=0, le=1)

    @property
    def files(self) -> list[str]:
        return [self.image] if self.mask is None else [self.image, self.mask]


class ImageTask(WireModel):
    """One image to make, or with ``select`` one diverse set, whose first seed and index are ``seed`` and ``index``.

    ``created`` and ``deadline`` are Unix times in seconds: by the clock of Redis in the queue, by `steady_time` in each
    process. ``width`` and ``height`` are pixels; ``traceparent`` (W3C Trace Context) names the call's trace.
    ``negative_prompt`` and ``guidance_scale`` are for guided models, None for the model's own.
    """

    job_id: str
    index: int
    prompt: str
    seed: int = Field(ge=0, le=MAX_SEED)
    width: int
    height: int
    format: ImageFormat = "png"
    quality: int = 90
    mode: Mode = "fast"
    created: float
    deadline: float | None = None
    traceparent: str | None = None
    select: DiverseSet | None = None
    source: SourcePicture | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None

    @property
    def patience_s(self) -> float | None:
        """Seconds from its creation to its deadline."""
        return None if self.deadline is None else self.deadline - self.created

    @property
    def indices(self) -> range:
        """The indices of its images among those of the job."""
        return range(self.index, self.index + (self.select.images if self.select else 1))


class Timings(WireModel):
    """Seconds one image spent waiting and in each stage; ``total`` runs from its creation to its commit."""

    queue: float
    encode: float
    denoise: float
    decode: float
    encode_image: float
    total: float


class Determinism(WireModel):
    """Conditions that the pixels depend on beside prompt, seed and size; ``bucket`` is the batch size in rows."""

    mode: Mode
    bucket: int
    device: str
    dtype: str
    torch: str
    model_sha: str


class PromptTokens(WireModel):
    """Tokens of a prompt, and how many of them the text encoder reads that reads most; each counts its end marks."""

    total: int
    read: int


class ImageResult(WireModel):
    """A finished image; its bytes are stored beside it under their SHA-256 (hex).

    ``layout`` is the vector on which jobs.diversity measures the diversity of a job's images. ``work_s`` is its share
    of the device's time, in seconds. That and ``prompt_tokens`` are None in the record of a worker that counts neither;
    ``negative_prompt_tokens`` are also None where the call brought no negative prompt.
    """

    index: int
    seed: int
    width: int
    height: int
    format: ImageFormat
    sha256: str
    layout: str
    timings: Timings
    determinism: Determinism
    prompt_tokens: PromptTokens | None = None
    negative_prompt_tokens: PromptTokens | None = None
    work_s: float | None = None


class ImageFailure(WireModel):
    """The reason why an image was not made; as final as a result.

    With ``transient`` it lies in the moment, not in the call: the same call may succeed when it is sent again.
    """

    index: int
    reason: FailureReason
    detail: str
    transient: bool = False


class EffectiveSettings(WireModel):
    """A worker's settings as they took effect: ``auto`` is resolved; ``threads`` are those of one network evaluation.

    ``max_batch_reason`` says why a step holds no more images, and strict ones run in batches of ``strict_batch``.

    A worker of another version may report more fields, which are kept, or fewer, which are None.
    """

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    device: str
    dtype: str
    text_encoders: str | None = None
    quantize: str | None = None
    max_batch: int | None = None
    max_batch_reason: str | None = None
    strict_batch: int | None = None
    runtime: str | None = None
    compile: bool | None = None
    cuda_graphs: bool | None = None
    threads: int | None = None
    lease_s: float | None = None
    result_ttl_s: float | None = None
    embed_recipe: bool | None = None


class ModelCard(WireModel):
    """The model that a worker serves. ``sizes`` are (height, width) in pixels, the native one first.

    ``evaluations`` (NFE) counts how often the network runs for one image: twice a step under guidance.
    ``guidance_scale`` is 1 without guidance, None on the card of a worker that does not announce it. Calls may name
    another scale, and another ``negative_prompt``, where that is not None.
    ``noise_levels`` are those at which a picture may enter, falling from 1 to 0; empty for a model that takes none.
    They are the native size's; ``size_noise_levels`` has those of each of ``sizes``, where they depend on the size.
    ``examples`` are prompts that the model draws well.
    """

    name: ModelName
    sha256: str
    family: str
    method: str
    steps: int
    evaluations: int
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    noise_levels: list[float] = Field(default=[])
    size_noise_levels: list[list[float]] | None = None
    sizes: list[tuple[int, int]] = Field(min_length=1)
    max_sequence_length: int | None
    version: str
    examples: list[str] = Field(default=[])
    settings: EffectiveSettings

    @property
    def own_guidance_scale(self) -> float | None:
        """``guidance_scale``, which for a model of one evaluation a step is 1; None when it is unknown."""
        return 1.0 if self.evaluations == self.steps else self.guidance_scale


class WorkerLease(WireModel):
    """A live worker and the card it announced; ``expires_in`` is in seconds.

    ``since`` is the Unix time in seconds, by the clock of Redis, at which it was first announced.
    """

    worker_id: str
    expires_in: float
    card: ModelCard
    since: float = 0.0


class JobState(WireModel):
    """A job as Redis knows it. ``created`` is a Unix time in seconds, ``client`` the hash of whom it belongs to."""

    id: str
    model: str
    client: str = ""
    created: float
    total: int
    started: bool
    results: list[ImageResult]
    failures: list[ImageFailure]

    @property
    def settled(self) -> bool:
        """Return whether every image is made or has failed for good."""
        return len(self.results) + len(self.failures) == self.total

    @property
    def status(self) -> JobStatus:
        if not self.settled:
            return "running" if self.started else "queued"
        reasons = {failure.reason for failure in self.failures}
        if reasons & {"error", "refused"}:
            return "failed"
        if "expired" in reasons:
            return "expired"
        return "cancelled" if reasons else "completed"


class JobEvent(WireModel):
    """Message published when an image of a job is settled; ``done`` counts results and failures."""

    job_id: str
    index: int
    done: int
    failed: int
    total: int


class Preview(WireModel):
    """An unfinished image after ``step`` of ``steps`` denoising steps: a small image file, as base64."""

    job_id: str
    index: int
    seed: int
    step: int
    steps: int
    width: int
    height: int
    format: ImageFormat
    b64: str


class WebhookTarget(WireModel):
    """The address that is told about a job's end, and the hash of the API key that asked for it, '' without keys.

    ``base_url`` is the server's own address as that caller knows it, for the images' addresses.
    """

    url: str
    caller: str
    base_url: str


class PreviewSubscription(WireModel):
    """Request for the previews of a job, to be published on ``channel`` for the next few seconds."""

    job_id: str
    channel: str
