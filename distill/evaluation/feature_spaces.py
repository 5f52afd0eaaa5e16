"""The spaces in which pictures are compared: each a frozen encoder, uint8 [B, H, W, 3] → float32 [B, D].

Another package adds its own by `register`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, CLIPVisionModel

from distill.evaluation.preprocessing import Preprocessing
from worker.model_folder.loading import device_and_dtype
from worker.model_folder.networks import read_network

FeatureSpace = Callable[[torch.Tensor], torch.Tensor]
Loaded = TypeVar("Loaded")

BATCH = 32
FEW = 4
"""Pictures that `layout` reads at once: in float32 one of 1024² takes 12 MB."""
DINO = ("dinov2", "dinov2_with_registers", "dinov3_vit")
LAYOUT = 8
"""Cells of `layout` along an edge."""

_registered: dict[str, Callable[[Path], FeatureSpace]] = {}


def load(folders: Mapping[str, Path]) -> dict[str, FeatureSpace]:
    """`layout`, which needs no weights, and a space for each of `folders`, by its name: dino, clip or a registered one.

    Raises ValueError for another name, and for a folder that does not hold such a network.
    """
    return {"layout": layout} | load_each("--features", {"dino": dino, "clip": clip} | _registered, folders)


def load_each(
    option: str, loaders: Mapping[str, Callable[[Path], Loaded]], folders: Mapping[str, Path]
) -> dict[str, Loaded]:
    """Load each of `folders` by the loader of its name. Raises ValueError for a name without one."""
    if unknown := folders.keys() - loaders.keys():
        raise ValueError(f"{option}: {unknown.pop()} is none of {', '.join(loaders)}")
    return {name: loaders[name](folder) for name, folder in folders.items()}


def register(name: str, loader: Callable[[Path], FeatureSpace]) -> None:
    """Let `load` take folders for `name`, which `loader` loads."""
    _registered[name] = loader


def layout(images: torch.Tensor) -> torch.Tensor:
    """The mean colours of 8×8 cells, less the mean of the picture: the layout of light and colour. D = 192."""
    few = images.split(FEW)
    cells = torch.cat([F.adaptive_avg_pool2d(one.permute(0, 3, 1, 2).float() / 127.5 - 1, LAYOUT) for one in few])
    return (cells - cells.mean((2, 3), keepdim=True)).flatten(1)


def dino(folder: Path) -> FeatureSpace:
    """DINOv2 or DINOv3: the pooled class token after the last norm, as the paper takes it."""
    check_folder("--features dino", folder, DINO)
    network = frozen(read_network(AutoModel, folder, "--features dino"))
    return _in_parts(network, Preprocessing.load(folder), lambda output: output.pooler_output)


def clip(folder: Path) -> FeatureSpace:
    """The picture half of a CLIP: the class token before the last norm and the projection, as the authors' code takes
    it. It is not the usual image embedding."""
    check_folder("--features clip", folder, ("clip", "clip_vision_model"))
    network = frozen(read_network(CLIPVisionModel, folder, "--features clip"))
    return _in_parts(network, Preprocessing.load(folder), lambda output: output.last_hidden_state[:, 0])


def check_folder(option: str, folder: Path, kinds: tuple[str, ...]) -> None:
    """Raises ValueError unless `folder` is a Hugging Face model of one of `kinds`."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{option}: {folder} holds no config.json; give the folder of a downloaded model")
    kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    if kind not in kinds:
        raise ValueError(f"{option}: {folder} holds a {kind}, not one of {', '.join(kinds)}")


def frozen(network: Any) -> Any:
    """Move the network to the device, in float32 and without gradients."""
    return network.float().eval().requires_grad_(False).to(device_and_dtype("auto", "auto")[0])


def _in_parts(network: Any, preprocessing: Preprocessing, pooled: Callable[[Any], torch.Tensor]) -> FeatureSpace:
    @torch.no_grad()
    def read(images: torch.Tensor) -> torch.Tensor:
        parts = [pooled(network(pixel_values=preprocessing(part.to(network.device)))) for part in images.split(BATCH)]
        return torch.cat(parts).cpu()

    return read
