"""Content negotiation: JSON or the bytes of an image, by the ``Accept`` header (RFC 9110, 12.5.1)."""

from typing import get_args

from jobs.models import ImageFormat

ANY_IMAGE = "image/*"


class NotAcceptableError(Exception):
    """The caller accepts only kinds of images that are not made here."""


def accepted_image(accept: str, usual: ImageFormat = "png") -> ImageFormat | None:
    """The image format that `accept` names and prefers to JSON, else None: also for ``*/*`` alone.

    ``image/*`` stands for the `usual` format, where no other is named. NotAcceptableError for a header that names
    nothing but images of other kinds.
    """
    qualities = dict(_range_and_quality(item) for item in accept.split(","))
    wanted = {media_range: quality for media_range, quality in qualities.items() if quality > 0}
    named: list[ImageFormat] = [name for name in get_args(ImageFormat) if f"image/{name}" in wanted]
    best = max(named, key=lambda name: wanted[f"image/{name}"], default=None)
    if best is None and ANY_IMAGE in wanted:
        best = usual
    if best is None:
        if wanted and all(media_range.startswith("image/") for media_range in wanted):
            raise NotAcceptableError
        return None
    quality = wanted.get(f"image/{best}", wanted.get(ANY_IMAGE, 0.0))
    return best if quality > qualities.get("application/json", 0.0) else None


def _range_and_quality(item: str) -> tuple[str, float]:
    media_range, *parameters = (part.strip().lower() for part in item.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            return media_range, _quality(value)
    return media_range, 1.0


def _quality(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0
