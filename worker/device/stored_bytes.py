"""The memory that weights take."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn


def stored_bytes(*networks: nn.Module) -> int:
    """Return the bytes of all parameters and buffers of `networks`, shared ones once; of quantized weights, of their
    values and scales."""
    tensors = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    return sum({id(tensor): tensor.numel() * tensor.element_size() for tensor in _plain(tensors)}.values())


def _plain(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The tensors that subclasses such as torchao's are made of, and those that are plain."""
    for tensor in tensors:
        if hasattr(tensor, "__tensor_flatten__"):
            yield from _plain(getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        else:
            yield tensor
