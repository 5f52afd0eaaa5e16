"""The perceptual term of `dmd-perceptual`: the student's image near the teacher's from the same noise."""

import pkgutil
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

Decode = Callable[[torch.Tensor], torch.Tensor]


def feature_network(name: str) -> nn.Module:
    """What `package.module:factory` makes: images [B, 3, H, W] in [−1, 1] → one feature map [B, channels, …] or a
    sequence of them. It is frozen here. Raises ValueError when there is no such factory."""
    try:
        network = pkgutil.resolve_name(name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"perceptual.network: {name} cannot be had: {error}") from error
    return network.eval().requires_grad_(False)


def distance(network: nn.Module, images: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of features, each of unit length over its channels, summed over the maps (as LPIPS
    does, with equal weights). Gradients reach `images` only."""
    with torch.no_grad():
        wanted = _maps(network(reference))
    pairs = zip(_maps(network(images)), wanted, strict=True)
    apart = [(F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(1).mean() for one, other in pairs]
    return torch.stack(apart).sum()


def _maps(features: torch.Tensor | Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    return [features] if isinstance(features, torch.Tensor) else features
