"""Files that a few bytes make slow to decode are refused before they are, and odd ones that are none are read."""

import io
import struct
import zlib

import pytest
from PIL import Image

from service.inputs.file_structure import excess
from service.inputs.picture_files import PictureLimits, fitted_mask, fitted_picture, opened
from service.problems import InvalidFieldsError
from tests.service.pictures.files import picture, saved

LIMITS = PictureLimits(max_bytes=2**23, max_pixels=2**24)
PROGRESSIVE, WHOLE, PNG = picture(kind="JPEG", progressive=True), picture(kind="JPEG"), picture(mode="L")
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
PIXELS_AT = PNG.index(b"IDAT") - 4


def _chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _jpeg(between: bytes) -> bytes:
    return WHOLE[:20] + between + WHOLE[20:]  # after the first segment


@pytest.mark.parametrize(
    ("file", "kind", "most"),
    [
        (PROGRESSIVE[:-2] + 100 * LAST_SCAN + b"\xff\xd9", "scans", 100),
        (_jpeg(1001 * b"\xff\xfe\x00\x02"), "segments", 1000),
        (_jpeg(1001 * b"\xff\xe2\x00\x02"), "segments", 1000),
        (_jpeg(1001 * b"\x00\xff\xfe\x00\x02"), "segments", 1000),
        (_jpeg(65 * b"\xff"), "bytes between segments", 64),
        (_jpeg(65 * b"\x00"), "bytes between segments", 64),
        (_jpeg(33 * b"\xff\x00"), "bytes between segments", 64),
        (PNG[:PIXELS_AT] + 201 * _chunk(b"prVt") + PNG[PIXELS_AT:], "chunks beside those of pixels", 200),
        (PNG[:PIXELS_AT] + 1100 * _chunk(b"IDAT") + PNG[PIXELS_AT:], "chunks of pixels", 1012),
    ],
)
def test_what_is_in_too_many_pieces(file: bytes, kind: str, most: int) -> None:
    assert excess(file) == (kind, most)
    with pytest.raises(InvalidFieldsError, match=f"image: at most {most} {kind} of the file"):
        opened(file, "image", LIMITS)


@pytest.mark.parametrize(
    "file",
    [
        *(PNG, WHOLE, PROGRESSIVE, picture(kind="WEBP")),
        _jpeg(60 * b"\xff"),
        _jpeg(b"\x00\x00\xff\x00"),
        saved(Image.effect_noise((640, 480), 90), "JPEG", quality=100, restart_marker_blocks=1),
        WHOLE + 100 * b"\0\xff\xda",  # what a phone puts behind a picture is not read
        saved(
            Image.new("L", (8, 8)), "PNG", save_all=True, append_images=[Image.new("L", (8, 8), i) for i in range(250)]
        ),
    ],
)
def test_what_real_files_have(file: bytes) -> None:
    assert excess(file) is None
    assert fitted_picture(opened(file, "image", LIMITS), "image", (8, 8))


def _exif(*entries: bytes) -> bytes:
    """Little-endian EXIF of entries of 12 bytes each: tag, type, count, value."""
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


TURNED = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "entries",
    [
        (TURNED, struct.pack("<HHII", 0x8769, 2, 1, 65)),  # a directory that is a text: TypeError
        (TURNED, struct.pack("<HHII", 0x100, 2, 4, 0x41424344)),  # a width that is a text: struct.error
    ],
    ids=["directory", "width"],
)
def test_odd_exif_turns_a_picture_all_the_same(kind: str, entries: tuple[bytes, ...]) -> None:
    file = picture(kind=kind, exif=_exif(*entries), **({} if kind == "PNG" else {"quality": 95}))
    for bring in (fitted_picture, fitted_mask):
        found = Image.open(io.BytesIO(bring(opened(file, "image", LIMITS), "image", (64, 64))))
        assert found.getpixel((32, 4)) != found.getpixel((32, 60))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", _exif(TURNED)[:-10], b"\xff" * 40])
def test_a_picture_whose_exif_cannot_be_read_is_upright(exif: bytes) -> None:
    file = picture(kind="JPEG", exif=exif, quality=95)
    found = Image.open(io.BytesIO(fitted_picture(opened(file, "image", LIMITS), "image", (64, 64))))
    assert found.getpixel((4, 32)) != found.getpixel((60, 32))


@pytest.mark.parametrize(("clear", "shown"), [(256, 0), (0, 255), (None, 0)])
def test_what_is_transparent_in_16_bits_of_grey_is_that_grey_alone(clear: int | None, shown: int) -> None:
    file = saved(Image.new("I;16", (8, 8), 0), "PNG", **({} if clear is None else {"transparency": clear}))
    found = Image.open(io.BytesIO(fitted_picture(opened(file, "image", LIMITS), "image", (8, 8))))
    assert found.getpixel((4, 4)) == (shown, shown, shown)
    mask = Image.open(io.BytesIO(fitted_mask(opened(file, "mask", LIMITS), "mask", (8, 8))))
    assert mask.getpixel((4, 4)) == shown


def test_what_is_transparent_in_16_bits_of_colour_is_compared_in_8() -> None:
    head, rows = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), zlib.compress(bytes([0, 1, 0, 2, 0, 3, 0]))
    parts = {b"IHDR": head, b"tRNS": bytes([1, 0, 2, 0, 3, 0]), b"IDAT": rows, b"IEND": b""}
    file = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts.items())
    found = Image.open(io.BytesIO(fitted_picture(opened(file, "image", LIMITS), "image", (8, 8))))
    assert found.getpixel((4, 4)) == (255, 255, 255)


def test_a_large_jpeg_is_decoded_no_larger_than_it_is_used() -> None:
    image = opened(picture((1024, 512), "JPEG"), "image", LIMITS)
    fitted_picture(image, "image", (64, 64))
    assert image.size == (256, 128)
