"""Small tasks, results and cards to test with."""

import hashlib
import time
import uuid

from jobs.diversity import pack_layout
from jobs.models import (
    Determinism,
    DiverseSet,
    EffectiveSettings,
    ImageResult,
    ImageTask,
    ModelCard,
    PromptTokens,
    Timings,
)

MODEL = "emoji-test"
WORDS_READ = 16


def sample_card(name: str = MODEL) -> ModelCard:
    return ModelCard(
        name=name,
        sha256="ab" * 32,
        family="sd3",
        method="dp-dmd",
        steps=4,
        evaluations=4,
        noise_levels=[1.0, 0.9, 0.75, 0.5, 0.0],
        sizes=[(64, 64), (64, 96)],
        max_sequence_length=16,
        version="0.1.0",
        settings=EffectiveSettings(device="cpu", dtype="float32", max_batch=8),
    )


def sample_tasks(count: int, prompt: str = "a red heart", seed: int = 7) -> list[ImageTask]:
    job_id = uuid.uuid4().hex
    return [
        ImageTask(job_id=job_id, index=i, prompt=prompt, seed=seed + i, width=64, height=64, created=time.time())
        for i in range(count)
    ]


def sample_set(images: int, candidates: int, seed: int = 7) -> ImageTask:
    (task,) = sample_tasks(1, seed=seed)
    return task.model_copy(update={"select": DiverseSet(images=images, candidates=candidates)})


def sample_results(task: ImageTask, data: bytes) -> list[ImageResult]:
    """Return a result for each image of the task, all with the same bytes; the last candidates of a set are chosen."""
    first = task.seed + task.select.candidates - task.select.images if task.select else task.seed
    return [
        sample_result(task.model_copy(update={"index": index, "seed": first + i}), data)
        for i, index in enumerate(task.indices)
    ]


def sample_result(task: ImageTask, data: bytes) -> ImageResult:
    waited = time.time() - task.created
    return ImageResult(
        index=task.index,
        seed=task.seed,
        width=task.width,
        height=task.height,
        format=task.format,
        sha256=hashlib.sha256(data).hexdigest(),
        layout=pack_layout([byte - 128.0 for byte in hashlib.sha256(data).digest()]),
        timings=Timings(queue=waited, encode=0.001, denoise=0.02, decode=0.003, encode_image=0.001, total=waited),
        determinism=Determinism(
            mode=task.mode, bucket=1, device="cpu", dtype="float32", torch="2.13.0", model_sha="ab" * 32
        ),
        work_s=0.02,
        prompt_tokens=_tokens(task.prompt),
        negative_prompt_tokens=_tokens(task.negative_prompt) if task.negative_prompt else None,
    )


def _tokens(prompt: str) -> PromptTokens:
    words = len(prompt.split())
    return PromptTokens(total=words, read=min(words, WORDS_READ))
