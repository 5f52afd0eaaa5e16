"""The picture of a call as the source of its images."""

import asyncio
import binascii
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast
from weakref import WeakValueDictionary

from jobs.models import ImageFormat, ImageTask, ModelCard, SourcePicture
from jobs.queue.claims import SourceFiles
from jobs.queue.pictures.sources import Source
from service.inputs.picture_files import (
    PictureLimits,
    Size,
    fitted_mask,
    fitted_picture,
    is_transparent,
    opened,
    refused,
    too_large,
    turned_like,
    upright_size,
)
from service.model_catalogue import ModelCatalogue

# An address of an image that was made here, or the end of one.
ADDRESS = re.compile(r"(?:[^,]*/)?([0-9a-f]{64})\.(png|jpeg|webp)")
LONGEST_ADDRESS = 2048
DATA_URL = re.compile(r"^data:image/\w+;base64,")

STRENGTH, STRENGTH_WITH_MASK = 0.75, 1.0


@dataclass(frozen=True)
class PictureInput:
    """The picture of a call, and perhaps its mask: files, or as text their base64 or the address of an image.

    With `transparent_is_mask` a picture without a mask is painted anew where it is transparent.
    """

    image: bytes | str
    mask: bytes | str | None = None
    strength: float | None = None
    transparent_is_mask: bool = False

    @property
    def least_strength(self) -> float:
        """The strength, as far as it is known before the picture is read: one that is its own mask changes more."""
        default = STRENGTH if self.mask is None else STRENGTH_WITH_MASK
        return default if self.strength is None else self.strength


class SourcePictures:
    """Reads the pictures of calls. They are decoded by a thread of their own, one after the other."""

    def __init__(self, catalogue: ModelCatalogue, limits: PictureLimits) -> None:
        self._catalogue, self.limits = catalogue, limits
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, caller: str) -> asyncio.Lock:
        """Held while a picture of `caller` is read: the next one waits, so that callers take turns."""
        return self._turns.setdefault(caller, asyncio.Lock())

    async def source_of(self, given: PictureInput, size: Size) -> Source:
        """The source for images of `size`. Raises InvalidFieldsError for a picture beyond a limit."""
        image = await self._found(given.image, "image")
        mask = None if given.mask is None else await self._found(given.mask, "mask")
        loop = asyncio.get_running_loop()
        files = await loop.run_in_executor(self._decoder, self._read, given, image, mask, size)
        default = STRENGTH if files.mask is None else STRENGTH_WITH_MASK
        return Source(files, default if given.strength is None else given.strength)

    def _read(self, given: PictureInput, image: bytes | str, mask: bytes | str | None, size: Size) -> SourceFiles:
        picture = opened(_file(image, "image"), "image", self.limits)
        outline = None if mask is None else opened(_file(mask, "mask"), "mask", self.limits)
        if outline:
            upright = upright_size(picture, "image")
            if upright_size(outline, "mask") != upright != upright_size(turned_like(outline, picture), "mask"):
                sides = "{}x{}".format(*upright)
                raise refused("mask", f"must have the size of the image, {sides}", sides)
        if outline is None and given.transparent_is_mask and is_transparent(picture, "image"):
            outline = picture
        painted = None if outline is None else fitted_mask(outline, "image" if outline is picture else "mask", size)
        return SourceFiles(fitted_picture(picture, "image", size), painted)

    async def _found(self, given: bytes | str, field: str) -> bytes | str:
        """The file that an address stands for; anything else as it is."""
        if isinstance(given, str) and len(given) <= LONGEST_ADDRESS and (address := ADDRESS.fullmatch(given)):
            return await self._made_here(address[1], cast(ImageFormat, address[2]), field)
        return given

    async def _made_here(self, sha256: str, image_format: ImageFormat, field: str) -> bytes:
        for queue in await self._catalogue.queues():
            size, _ = await queue.image_head(sha256, image_format, 0)
            if size > self.limits.max_bytes:
                raise too_large(field, "bytes", self.limits.max_bytes)
            if size and (file := await queue.image(sha256, image_format)):
                return file
        raise refused(field, "the image is unknown, or has expired")


def _file(given: bytes | str, field: str) -> bytes:
    if isinstance(given, bytes):
        return given
    try:
        return binascii.a2b_base64(DATA_URL.sub("", given, count=1), strict_mode=True)
    except ValueError:
        raise refused(field, "must be base64, or the address of an image made here") from None


def check_taken(card: ModelCard) -> None:
    """Raise InvalidFieldsError for a model that takes no picture."""
    if not card.noise_levels:
        raise refused("image", f"{card.name} takes none: it was published without what encodes pictures")


def begun_from(picture: SourcePicture, tasks: Sequence[ImageTask]) -> list[ImageTask]:
    """The `tasks` of a call, begun from its picture."""
    return [task.model_copy(update={"source": picture}) for task in tasks]
