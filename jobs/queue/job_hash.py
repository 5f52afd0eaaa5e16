"""A job's hash in Redis, read."""

from jobs.models import ImageFailure, ImageResult, JobState


def read_job(job_id: str, model: str, fields: dict[bytes, bytes], delivered: bool) -> JobState:
    """The state that the hash's `fields` tell; `delivered` says whether a worker has been given the first image."""
    results, failures = _outcomes(fields)
    return JobState(
        id=job_id,
        model=model,
        created=float(fields[b"created"]),
        total=int(fields[b"total"]),
        started=bool(results or failures) or delivered,
        results=results,
        failures=failures,
    )


def _outcomes(fields: dict[bytes, bytes]) -> tuple[list[ImageResult], list[ImageFailure]]:
    results, failures = [], []
    for name, value in fields.items():
        if name.startswith(b"image:"):
            kind, _, outcome = value.partition(b" ")
            if kind == b"result":
                results.append(ImageResult.model_validate_json(outcome))
            else:
                failures.append(ImageFailure.model_validate_json(outcome))
    return sorted(results, key=lambda result: result.index), sorted(failures, key=lambda failure: failure.index)
