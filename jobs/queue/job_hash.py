"""Reads the Redis hash of a job, which holds its counts and the outcome of each of its images."""

from typing import Any

from redis.asyncio import Redis

from jobs.models import ImageFailure, ImageResult, JobState, UnreadableRecordError
from jobs.queue.keys import ModelKeys


async def read_job(redis: Redis, model: str, job_id: str) -> JobState | None:
    """The job's state and results, or None when it is unknown or has expired."""
    client: Any = redis  # redis-py types every answer as bytes | str; ours are bytes
    keys = ModelKeys(model)
    fields = await client.hgetall(keys.job(job_id))
    if not fields:
        return None
    results, failures = _outcomes(fields)
    return JobState(
        id=job_id,
        model=model,
        client=fields.get(b"client", b"").decode(),
        created=float(fields[b"created"]),
        total=int(fields[b"total"]),
        started=bool(results or failures) or await _delivered(client, keys.tasks, fields[b"entry:0"]),
        results=results,
        failures=failures,
    )


def _outcomes(fields: dict[bytes, bytes]) -> tuple[list[ImageResult], list[ImageFailure]]:
    results, failures = [], []
    for name, value in fields.items():
        if name.startswith(b"image:"):
            kind, _, outcome = value.partition(b" ")
            try:
                if kind == b"result":
                    results.append(ImageResult.from_record(outcome))
                else:
                    failures.append(ImageFailure.from_record(outcome))
            except UnreadableRecordError as error:
                index = int(name.removeprefix(b"image:"))
                failures.append(ImageFailure(index=index, reason="error", detail=f"its record is {error}"))
    return sorted(results, key=lambda result: result.index), sorted(failures, key=lambda failure: failure.index)


async def _delivered(client: Any, tasks: str, entry_id: bytes) -> bool:
    """Return whether a worker has been given the stream entry, by the group's last delivered one."""
    groups = await client.xinfo_groups(tasks)
    return any(_stream_position(entry_id) <= _stream_position(group["last-delivered-id"]) for group in groups)


def _stream_position(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)
