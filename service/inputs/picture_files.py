"""Pictures and masks from untrusted files: limits before anything is decoded, then one size and one form."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, ImageOps

from service.problems import FieldError, InvalidFieldsError

FORMATS = ("PNG", "JPEG", "WEBP")
# What Pillow raises for a file that is broken, not what it says it is, or a decompression bomb.
BROKEN = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)

Result = TypeVar("Result")
Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True)
class PictureLimits:
    """The largest file that is read, in bytes, and the largest picture that is decoded, in pixels."""

    max_bytes: int
    max_pixels: int


def opened(file: bytes, field: str, limits: PictureLimits) -> Image.Image:
    """Read the head of the picture in the `field` of a request; nothing is decoded.

    Raises InvalidFieldsError for a file that is too large, of another kind, or of too many pixels.
    """
    if len(file) > limits.max_bytes:
        raise refused(field, f"at most {limits.max_bytes} bytes", limits.max_bytes)
    try:
        image = Image.open(io.BytesIO(file), formats=FORMATS)
    except Image.DecompressionBombError:
        raise refused(field, f"at most {limits.max_pixels} pixels", limits.max_pixels) from None
    except BROKEN:
        kinds = [kind.lower() for kind in FORMATS]
        raise refused(field, f"must be a picture: {', '.join(kinds)}", kinds) from None
    if image.width * image.height > limits.max_pixels:
        message = f"at most {limits.max_pixels} pixels, not {image.width}x{image.height}"
        raise refused(field, message, limits.max_pixels)
    return image


def fitted_picture(image: Image.Image, field: str, size: Size) -> bytes:
    """Decode a picture, scale it until it covers `size`, and cut off evenly what is beyond: a PNG in RGB.

    It stands upright as its EXIF says, and what is transparent is white. Raises InvalidFieldsError for a broken file.
    """
    return _fitted(field, lambda: _on_white(_upright(image)), size, Image.Resampling.LANCZOS)


def fitted_mask(image: Image.Image, field: str, size: Size) -> bytes:
    """Decode a mask and bring it to `size` as its picture is: a PNG in grey, white where the image is painted anew.

    That is where the mask is transparent or, in a mask without transparency, white.
    """
    return _fitted(field, lambda: _painted(_upright(image)), size, Image.Resampling.BOX)


def is_transparent(image: Image.Image, field: str) -> bool:
    """Return whether a part of the picture is transparent, so that it can be its own mask."""
    return _decoded(field, lambda: _opacity(image) is not None)


def refused(field: str, message: str, limit: object = None) -> InvalidFieldsError:
    return InvalidFieldsError([FieldError(field=field, message=message, limit=limit)])


def _fitted(field: str, decode: Callable[[], Image.Image], size: Size, scaling: Image.Resampling) -> bytes:
    image, out = _decoded(field, decode), io.BytesIO()
    ImageOps.fit(image, size, scaling).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _decoded(field: str, decode: Callable[[], Result]) -> Result:
    try:
        return decode()
    except BROKEN:
        raise refused(field, "cannot be read: the file is broken") from None


def _upright(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        return upright.convert("I").point(lambda value: value / 257).convert("L")
    return upright


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _painted(image: Image.Image) -> Image.Image:
    opacity = _opacity(image)
    return image.convert("L") if opacity is None else ImageOps.invert(opacity)


def _opacity(image: Image.Image) -> Image.Image | None:
    """The alpha channel; None where nothing is transparent."""
    if not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return alpha if any(alpha.histogram()[:255]) else None
