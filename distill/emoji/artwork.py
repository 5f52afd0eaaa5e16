"""Fetch the openly licensed emoji artwork and render it to square images on white."""

import io
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from distill.emoji.world import EMOJI, STYLES, Emoji

SIZE = 128
CONTENT = 15 / 16
"""Share of the side that the artwork's own box fills, so that all styles share one margin."""

PACKAGES = {
    "noto": ("@iconify-json/noto", "1.2.9", "Apache-2.0"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
    "fluent-emoji-flat": ("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
    "fluent-emoji-3d": ("@lobehub/fluent-emoji-3d", "1.1.0", "MIT"),
    "noto-v1": ("@iconify-json/noto-v1", "1.2.5", "Apache-2.0"),
}
"""Artwork pack → (npm package, version, licence as declared by the package)."""


@dataclass(frozen=True)
class Artwork:
    """Rendered pictures: `images` uint8 [N, size, size, 3]; `emoji` and `style` int64 [N] index
    into `world.EMOJI` and `world.STYLES`."""

    images: NDArray[np.uint8]
    emoji: NDArray[np.int64]
    style: NDArray[np.int64]

    def save(self, path: Path) -> None:
        np.savez_compressed(path, images=self.images, emoji=self.emoji, style=self.style)

    @classmethod
    def load(cls, path: Path) -> "Artwork":
        with np.load(path, allow_pickle=False) as data:
            return cls(data["images"], data["emoji"], data["style"])


def kept(work: Path, size: int = SIZE) -> Artwork:
    """The artwork in `size` × `size` pixels as `work` keeps it; fetched and rendered when it does not yet."""
    path = work / f"artwork-{size}.npz"
    if not path.exists():
        pictures = build(work / "npm", size)
        pictures.save(partial := work / f"artwork-{size}.partial.npz")
        os.replace(partial, path)
    return Artwork.load(path)


def build(downloads: Path, size: int) -> Artwork:
    """Fetch every pack into `downloads` (kept for the next time) and render all known emoji to `size` × `size` pixels.

    An emoji that a pack lacks is left out for that style.
    """
    images, emoji_index, style_index = [], [], []
    noto_names = json.loads(_read(downloads, "noto", "chars.json"))
    for style, pack in enumerate(STYLES):
        draw = _draw_3d(downloads) if pack == "fluent-emoji-3d" else _draw_svg(downloads, pack, noto_names, size)
        for index, emoji in enumerate(EMOJI):
            picture = draw(emoji)
            if picture is not None:
                images.append(np.asarray(_fit(picture, size)))
                emoji_index.append(index)
                style_index.append(style)
    return Artwork(np.stack(images), np.array(emoji_index), np.array(style_index))


def _draw_svg(downloads: Path, pack: str, noto_names: dict[str, str], size: int):
    icons = json.loads(_read(downloads, pack, "icons.json"))
    chars = json.loads(_read(downloads, pack, "chars.json")) or noto_names

    def draw(emoji: Emoji) -> Image.Image | None:
        name = chars.get(emoji.code_point) or chars.get(f"{emoji.code_point}-fe0f")
        name = icons.get("aliases", {}).get(name, {}).get("parent", name)
        icon = icons["icons"].get(name)
        if icon is None:
            return None
        width, height = (icon.get(side) or icons.get(side, 16) for side in ("width", "height"))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * size))))

    return draw


def _draw_3d(downloads: Path):
    def draw(emoji: Emoji) -> Image.Image | None:
        for name in (emoji.code_point, f"{emoji.code_point}-fe0f"):
            try:
                return Image.open(io.BytesIO(_read(downloads, "fluent-emoji-3d", f"assets/{name}.webp")))
            except KeyError:
                continue
        return None

    return draw


def _fit(picture: Image.Image, size: int) -> Image.Image:
    """Crop to what is drawn, scale its longer side to CONTENT of `size`, centre it on white."""
    picture = picture.convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    scale = CONTENT * size / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), "white")
    canvas.alpha_composite(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return canvas.convert("RGB")


def _read(downloads: Path, pack: str, member: str) -> bytes:
    """One file of a pack. Raises KeyError when the pack lacks it."""
    file = _archive(downloads, pack).extractfile(f"package/{member}")
    if file is None:
        raise KeyError(member)
    return file.read()


@cache
def _archive(downloads: Path, pack: str) -> tarfile.TarFile:
    """The pack's npm archive, fetched once; npm checks its integrity hash."""
    name, version, _ = PACKAGES[pack]
    archive = downloads / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        downloads.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=downloads, check=True)
    return tarfile.open(archive)
