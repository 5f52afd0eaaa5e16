"""A feature network that a configuration can name."""

import torch
from torch import nn


def two_maps() -> nn.Module:
    """Return a network that answers two feature maps."""

    class TwoMaps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            early = self.first(images)
            return [early, self.second(early.relu())]

    return TwoMaps()
