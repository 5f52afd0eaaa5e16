"""Pictures that images begin from, as latents."""

import io
from collections import OrderedDict

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from jobs.models import SourcePicture
from jobs.queue.claims import SourceFiles
from worker.families.network import Network
from worker.pixels import from_uint8

PICTURES_KEPT = 16


class SourceLatents:
    """The latents of pictures, each encoded once and alone: no other picture changes a bit of them.

    The latest are kept, for the other images of their calls.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    def encoded(self, source: SourcePicture, files: SourceFiles) -> torch.Tensor:
        """Return the latents of the picture, fp32 [C, h, w] on the device. Raises OSError for a file that is none."""
        latents = self._kept.get(source.image)
        if latents is None:
            pixels = torch.from_numpy(picture_of(files.image)).to(self._network.device)
            latents = self._kept[source.image] = self._network.encode_picture(from_uint8(pixels[None]))[0]
        self._kept.move_to_end(source.image)
        while len(self._kept) > PICTURES_KEPT:
            self._kept.popitem(last=False)
        return latents


def painted(mask: bytes, latents: torch.Tensor) -> torch.Tensor:
    """Return how far each of the `latents` [C, h, w] is painted anew, fp32 [h, w]: as far as the pixel of it that is
    the farthest, so that nothing to be painted is held by what stays."""
    pixels = torch.from_numpy(mask_of(mask)).to(latents.device).float() / 255
    return F.adaptive_max_pool2d(pixels[None], latents.shape[1:])[0]


def picture_of(file: bytes) -> np.ndarray:
    """Decode a picture: uint8 [height, width, 3]."""
    return _decoded(file, "RGB")


def mask_of(file: bytes) -> np.ndarray:
    """Decode a mask: uint8 [height, width], 255 where the image is painted anew."""
    return _decoded(file, "L")


def _decoded(file: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(file), formats=["PNG"]) as image:
        return np.array(image.convert(mode))
