"""Picture files to send."""

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw


def picture(size: tuple[int, int] = (64, 64), kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """A red picture with a blue left half."""
    image = Image.new(mode, size, "red")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2 - 1, size[1]), "blue")
    return saved(image, kind, **options)


def mask(size: tuple[int, int] = (64, 64)) -> bytes:
    """A mask whose left half is painted anew."""
    image = Image.new("L", size, "black")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2 - 1, size[1]), "white")
    return saved(image, "PNG")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def b64(file: bytes) -> str:
    return base64.b64encode(file).decode()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is so large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
