"""The perceptual distance of `dmd-perceptual`, in the features of any frozen network."""

import pkgutil
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

Decode = Callable[[torch.Tensor], torch.Tensor]


def feature_network(name: str) -> nn.Module:
    """Make the frozen network of the factory `name`, "package.module:factory".

    It maps images [B, 3, H, W] in [−1, 1] to one feature map [B, channels, …] or a sequence of them. Raises ValueError
    when there is no such factory.
    """
    try:
        network = pkgutil.resolve_name(name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"perceptual.network: {name} cannot be loaded: {error}") from error
    return network.eval().requires_grad_(False)


def distance(network: nn.Module, images: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of unit-length features, summed over the maps: LPIPS with equal weights.

    Images are float32 [B, 3, H, W]. Gradients reach `images` only.
    """
    with torch.no_grad():
        targets = _maps(network(reference))
    pairs = zip(_maps(network(images)), targets, strict=True)
    distances = [(F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(1).mean() for one, other in pairs]
    return torch.stack(distances).sum()


def _maps(features: torch.Tensor | Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    return [features] if isinstance(features, torch.Tensor) else features
