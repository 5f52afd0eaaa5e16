"""Pictures and masks from untrusted files: limits before anything is decoded, then one size and one form."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from PIL import ExifTags, Image, ImageChops, ImageOps

from service.inputs.file_structure import excess
from service.problems import FieldError, InvalidFieldsError

FORMATS = ("PNG", "JPEG", "WEBP")
# What Pillow raises for a file that is broken, not what it says it is, or a decompression bomb.
BROKEN = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
# How a picture of each EXIF orientation is brought upright; without one here, it is.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXCHANGING_SIDES = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)

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

    Raises InvalidFieldsError for a file that is too large, of another kind, of too many pixels, or in too many pieces.
    """
    if len(file) > limits.max_bytes:
        raise too_large(field, "bytes", limits.max_bytes)
    if too_many := excess(file):
        pieces, most = too_many
        raise too_large(field, f"{pieces} of the file", most)
    try:
        image = Image.open(io.BytesIO(file), formats=FORMATS)
    except Image.DecompressionBombError:
        raise too_large(field, "pixels", limits.max_pixels) from None
    except BROKEN:
        kinds = [kind.lower() for kind in FORMATS]
        raise refused(field, f"must be a picture: {', '.join(kinds)}", kinds) from None
    if image.width * image.height > limits.max_pixels:
        raise too_large(field, "pixels", limits.max_pixels, f", not {image.width}x{image.height}")
    return image


def upright_size(image: Image.Image, field: str) -> Size:
    """The size of the picture as its EXIF says that it stands. Raises InvalidFieldsError for a broken file."""
    turn = _decoded(field, lambda: _turn(image))
    return (image.height, image.width) if turn in EXCHANGING_SIDES else image.size


def turned_like(mask: Image.Image, picture: Image.Image) -> Image.Image:
    """The mask with the orientation of its picture: as one made from the pixels of its file, which does not say so.

    That is a mask without an orientation that has the size of the file, and not that of the upright picture.
    """
    if _turn(mask) is None and mask.size == picture.size != upright_size(picture, "image"):
        mask.getexif()[ExifTags.Base.Orientation] = picture.getexif()[ExifTags.Base.Orientation]
    return mask


def fitted_picture(image: Image.Image, field: str, size: Size) -> bytes:
    """Decode a picture, scale it until it covers `size`, and cut off evenly what is beyond: a PNG in RGB.

    It stands upright as its EXIF says, and what is transparent is white. Raises InvalidFieldsError for a broken file.
    """
    return _fitted(field, lambda: _on_white(_upright(image, size)), size, Image.Resampling.LANCZOS)


def fitted_mask(image: Image.Image, field: str, size: Size) -> bytes:
    """Decode a mask and bring it to `size` as its picture is: a PNG in grey, white where the image is painted anew.

    That is where the mask is transparent or, in a mask without transparency, white.
    """
    return _fitted(field, lambda: _painted(_upright(image, size)), size, Image.Resampling.BOX)


def is_transparent(image: Image.Image, field: str) -> bool:
    """Return whether a part of the picture is transparent, so that it can be its own mask."""
    return _decoded(field, lambda: _opacity(_in_eight_bits(image)) is not None)


def refused(field: str, message: str, limit: object = None) -> InvalidFieldsError:
    return InvalidFieldsError([FieldError(field=field, message=message, limit=limit)])


def too_large(field: str, unit: str, most: int, found: str = "") -> InvalidFieldsError:
    """The refusal of a picture that has more than `most` of a `unit`."""
    return InvalidFieldsError([FieldError(field=field, message=f"at most {most} {unit}{found}", limit=most)], "picture")


def _fitted(field: str, decode: Callable[[], Image.Image], size: Size, scaling: Image.Resampling) -> bytes:
    image, out = _decoded(field, decode), io.BytesIO()
    ImageOps.fit(image, size, scaling).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _decoded(field: str, decode: Callable[[], Result]) -> Result:
    try:
        return decode()
    except BROKEN:
        raise refused(field, "cannot be read: the file is broken") from None


def _upright(image: Image.Image, size: Size) -> Image.Image:
    """The picture in 8 bits as it stands; of a JPEG that is far larger than `size` no more than twice as much."""
    turn, (width, height) = _turn(image), size
    image.draft(None, (2 * height, 2 * width) if turn in EXCHANGING_SIDES else (2 * width, 2 * height))
    stored = _in_eight_bits(image)
    return stored if turn is None else stored.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The turn that brings the picture upright. Nothing else of its EXIF is read; what cannot be read says nothing."""
    if image.format == "PNG":
        image.load()  # its EXIF may come after its pixels
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises whatever an odd value leads to
        return None


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """The picture with at most 8 bits a channel; the one value that is transparent is compared in 16."""
    clear = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        low, high = Image.frombytes("LA", image.size, image.tobytes()).split()
        if clear is None:
            return high
        is_clear = ImageChops.darker(_equal(low, clear & 255), _equal(high, clear >> 8))
        return Image.merge("LA", (high, ImageChops.invert(is_clear)))
    if isinstance(clear, tuple) and max(clear) > 255:  # 16 bits of colour, of which Pillow reads the upper 8
        image.load()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    return image


def _equal(channel: Image.Image, value: int) -> Image.Image:
    """White where `channel` has the `value`, black elsewhere."""
    return channel.point([255 * (other == value) for other in range(256)])


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
