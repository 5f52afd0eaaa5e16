"""Image files: right pixels, the recipe inside, the same bytes every time."""

import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from jobs.models import ImageFormat
from tests.worker.tasks import image_task
from worker.image_bytes import RECIPE_KEY, XMP_IN_PNG, encode_image, recipe

ABOUT = recipe(image_task("ein Kätzchen 🐱", seed=2**63 - 1), model_sha="ab" * 32, steps=4, version="0.1.0")


def _pixels() -> np.ndarray:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    return np.stack([np.tile(ramp, (48, 1)), np.tile(ramp[:48, None], (1, 64)), np.full((48, 64), 40, np.uint8)], -1)


def _read_recipe(image: Image.Image) -> dict:
    text = image.info[RECIPE_KEY] if image.format == "PNG" else image.getexif()[Base.ImageDescription]
    return json.loads(text)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_pixels_and_recipe_come_back(image_format: ImageFormat) -> None:
    image = Image.open(io.BytesIO(encode_image(_pixels(), image_format, 95, ABOUT)))
    assert image.format == image_format.upper()
    assert _read_recipe(image) == ABOUT
    assert ABOUT["prompt"] == "ein Kätzchen 🐱"
    error = np.abs(np.asarray(image.convert("RGB")).astype(int) - _pixels())
    assert error.mean() < (0.5 if image_format == "png" else 4)
    assert image_format != "png" or error.max() == 0


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_equal_input_gives_equal_bytes(image_format: ImageFormat) -> None:
    assert encode_image(_pixels(), image_format, 90, ABOUT) == encode_image(_pixels(), image_format, 90, ABOUT)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_without_a_recipe_nothing_is_embedded(image_format: ImageFormat) -> None:
    data = encode_image(_pixels(), image_format)
    image = Image.open(io.BytesIO(data))
    assert RECIPE_KEY not in image.info
    assert not image.getexif()


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_quality_costs_bytes(image_format: ImageFormat) -> None:
    assert len(encode_image(_pixels(), image_format, 30)) < len(encode_image(_pixels(), image_format, 95))


def _source_type(image: Image.Image) -> str | None:
    xmp = image.info.get("xmp") or image.info.get(XMP_IN_PNG, "").encode()
    if not xmp:
        return None
    (described,) = ElementTree.fromstring(xmp).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    return described.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_every_image_is_marked_as_made_by_a_model_unless_told_otherwise(image_format: ImageFormat) -> None:
    marked = Image.open(io.BytesIO(encode_image(_pixels(), image_format, 90, ABOUT)))
    source = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert _source_type(marked) == source
    assert _source_type(Image.open(io.BytesIO(encode_image(_pixels(), image_format, mark=False)))) is None
