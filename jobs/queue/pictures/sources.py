"""The pictures that calls bring: kept in Redis by the hash of their bytes, for as long as a job needs them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from redis.asyncio import Redis

from jobs.models import SourcePicture
from jobs.queue.claims import Claim, SourceFiles
from jobs.queue.keys import ModelKeys


@dataclass(frozen=True)
class Source:
    """A picture to begin from, with its `files` as they are to be kept."""

    files: SourceFiles
    strength: float

    @cached_property
    def picture(self) -> SourcePicture:
        """The same by content address, as tasks have it."""
        mask = None if self.files.mask is None else sha256(self.files.mask)
        return SourcePicture(image=sha256(self.files.image), mask=mask, strength=self.strength)

    @property
    def by_address(self) -> dict[str, bytes]:
        """The files by the hash of their bytes."""
        files = (file for file in (self.files.image, self.files.mask) if file is not None)
        return dict(zip(self.picture.files, files, strict=True))


def sha256(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


async def read_sources(redis: Redis, keys: ModelKeys, claims: Sequence[Claim]) -> list[SourceFiles | None]:
    """The files of each claim's picture; None where its task has none, or where they have expired."""
    wanted = {name for claim in claims if claim.task.source for name in claim.task.source.files}
    if not wanted:
        return [None] * len(claims)
    names = sorted(wanted)
    pipeline: Any
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hget(keys.input(name), "file")
        files = dict(zip(names, await pipeline.execute(), strict=True))
    return [_files(claim.task.source, files) if claim.task.source else None for claim in claims]


def _files(source: SourcePicture, files: dict[str, bytes | None]) -> SourceFiles | None:
    image, mask = files[source.image], files[source.mask] if source.mask else None
    return None if image is None or (source.mask and mask is None) else SourceFiles(image, mask)
