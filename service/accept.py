"""Content negotiation: JSON or the bytes of an image, by the ``Accept`` header (RFC 9110, 12.5.1)."""

from typing import get_args

from jobs.models import ImageFormat


def accepted_image(accept: str) -> ImageFormat | None:
    """The image format that `accept` names and prefers to JSON, else None: also for wildcards alone."""
    qualities = dict(_range_and_quality(item) for item in accept.split(","))
    named: list[ImageFormat] = [name for name in get_args(ImageFormat) if f"image/{name}" in qualities]
    best = max(named, key=lambda name: qualities[f"image/{name}"], default=None)
    if best is None or qualities[f"image/{best}"] <= qualities.get("application/json", 0.0):
        return None
    return best


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
