"""Encode pixels as PNG, JPEG or WebP, with the recipe of the image inside."""

import io
import json
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo

from jobs.models import ImageFormat, ImageTask

RECIPE_KEY = "fourstep"
"""Keyword of the PNG's iTXt chunk; JPEG and WebP keep the recipe in the EXIF ImageDescription."""

GENERATED = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
"""XMP that says in IPTC's terms that a model made the image: the mark that Article 50 of the EU's AI Act asks for."""

XMP_IN_PNG = "XML:com.adobe.xmp"

PNG_COMPRESSION, PNG_STRATEGY = 1, 3
"""zlib's fastest level, and Z_RLE, which on filtered pixels is faster than a search for longer matches, and as small.

docs/performance-results.md has figures, also of other encoders.
"""

WEBP_METHOD = 1
"""Half the time of the default, 4, for about 4% more bytes."""


def recipe(task: ImageTask, model_sha: str, steps: int, version: str) -> dict[str, Any]:
    """Return everything that it takes to make the image again; of the picture that it began from, the hash."""
    own = {
        "negative_prompt": task.negative_prompt,
        "guidance_scale": task.guidance_scale,
        **(task.source.model_dump() if task.source else {}),
    }
    return {
        "model_sha": model_sha,
        "prompt": task.prompt,
        "seed": task.seed,
        "steps": steps,
        "width": task.width,
        "height": task.height,
        "version": version,
        **{name: value for name, value in own.items() if value is not None},
    }


def encode_image(
    pixels: np.ndarray,
    image_format: ImageFormat,
    quality: int = 90,
    about: dict[str, Any] | None = None,
    *,
    mark: bool = True,
) -> bytes:
    """Encode uint8 [height, width, 3] as an image file; `quality` 1–100 counts for JPEG and WebP.

    `about`, the recipe, is embedded as JSON, and with `mark` that a model made the image. Equal arguments give equal
    bytes.
    """
    image, out = Image.fromarray(pixels), io.BytesIO()
    if image_format == "png":
        text = PngInfo()
        if about is not None:
            text.add_itxt(RECIPE_KEY, json.dumps(about, ensure_ascii=False, sort_keys=True))
        if mark:
            text.add_itxt(XMP_IN_PNG, GENERATED.decode())
        image.save(out, "PNG", compress_level=PNG_COMPRESSION, compress_type=PNG_STRATEGY, pnginfo=text)
    else:
        exif = Image.Exif()
        if about is not None:
            # EXIF text is ASCII; JSON escapes whatever is not.
            exif[Base.ImageDescription] = json.dumps(about, sort_keys=True)
        xmp = {"xmp": GENERATED} if mark else {}
        image.save(out, image_format.upper(), quality=quality, exif=exif, method=WEBP_METHOD, **xmp)
    return out.getvalue()
