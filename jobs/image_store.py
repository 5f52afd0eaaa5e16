"""A store for finished images outside Redis: a folder, or a bucket of S3, Google Cloud Storage or Azure."""

import re
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from jobs.models import ImageFormat

IN_REDIS = "redis"
BUCKETS = ("s3://", "gs://", "az://")

RETRY_TIMEOUT = timedelta(seconds=10)
SIGNED_FOR = timedelta(minutes=15)


class ImageStoreError(OSError):
    """The store did not do what it was asked to."""


def check_image_store(address: str) -> None:
    """Raise ValueError unless `address` is ``redis``, a folder or a bucket, and what it needs is installed."""
    if re.match(r"\w+://", address) and not address.startswith(BUCKETS):
        raise ValueError(f"must be redis, a folder, or begin with one of {', '.join(BUCKETS)}")
    if address != IN_REDIS and find_spec("obstore") is None:
        raise ValueError("images outside Redis need the extra: pip install '.[image-store]' in a checkout")


class ImageStore:
    """Images by the hash of their bytes, under ``<first two digits>/<sha256>.<format>``.

    Credentials of a bucket are read from the environment, by the names of its provider's own tools. Methods raise
    ImageStoreError.
    """

    def __init__(self, address: str) -> None:
        """Open a folder, which is made if need be, or a bucket; ImageStoreError when that is not possible."""
        # Of the extra `image-store`; the settings have checked that it is installed.
        from obstore import exceptions, store

        self._failed = exceptions.BaseError
        self._missing = (exceptions.NotFoundError, FileNotFoundError)
        self.is_bucket = address.startswith(BUCKETS)
        self._store: Any
        try:
            if self.is_bucket:
                self._store = store.from_url(
                    address,
                    retry_config={"max_retries": 2, "retry_timeout": RETRY_TIMEOUT},
                )
            else:
                self._store = store.LocalStore(Path(address).resolve(), mkdir=True)
        except (self._failed, OSError, ValueError) as error:
            raise ImageStoreError(f"{address} cannot be opened: {error}") from error

    async def put(self, sha256: str, image_format: ImageFormat, data: bytes) -> None:
        """Store an image, whole or not at all."""
        import obstore

        about = {"Content-Type": f"image/{image_format}"} if self.is_bucket else None
        try:
            await obstore.put_async(self._store, _name(sha256, image_format), data, attributes=about)
        except (self._failed, OSError) as error:
            raise ImageStoreError(_one_line(error)) from error

    async def get(self, sha256: str, image_format: ImageFormat) -> bytes | None:
        """The bytes of an image, None when the store has none."""
        size, data = await self._read(sha256, image_format, None)
        return data if size else None

    async def head(self, sha256: str, image_format: ImageFormat, head_bytes: int) -> tuple[int, bytes]:
        """Length in bytes and the first `head_bytes` of an image; 0 when the store has none."""
        size, data = await self._read(sha256, image_format, (0, max(1, head_bytes)))
        return size, data[:head_bytes]

    async def part(self, sha256: str, image_format: ImageFormat, start: int, end: int) -> bytes:
        """The bytes of an image from `start` to before `end`; none when the store has none."""
        return (await self._read(sha256, image_format, (start, end)))[1]

    async def _read(self, sha256: str, image_format: ImageFormat, extent: tuple[int, int] | None) -> tuple[int, bytes]:
        """The length of an image, and its bytes, or those of the `extent`."""
        import obstore

        options: Any = {"range": extent} if extent else None
        try:
            found = await obstore.get_async(self._store, _name(sha256, image_format), options=options)
            return found.meta["size"], bytes(await found.bytes_async())
        except self._missing:
            return 0, b""
        except (self._failed, OSError) as error:
            raise ImageStoreError(_one_line(error)) from error

    async def signed_url(self, sha256: str, image_format: ImageFormat, method: Literal["GET", "HEAD"]) -> str | None:
        """An address of the bucket at which anybody may GET or HEAD the image for a while; None when it has none."""
        import obstore

        name = _name(sha256, image_format)
        try:
            await obstore.head_async(self._store, name)
            return await obstore.sign_async(self._store, method, name, SIGNED_FOR)
        except self._missing:
            return None
        except (self._failed, OSError) as error:
            raise ImageStoreError(_one_line(error)) from error


def open_image_store(address: str) -> ImageStore | None:
    """The store at `address`; None for Redis, whose keys only its own scripts write."""
    return None if address == IN_REDIS else ImageStore(address)


def _name(sha256: str, image_format: ImageFormat) -> str:
    return f"{sha256[:2]}/{sha256}.{image_format}"


def _one_line(error: Exception) -> str:
    """The first line of the error, which the library follows by a dump of its insides."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
