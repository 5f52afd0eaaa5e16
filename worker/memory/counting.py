"""Count the memory of weights, and of what a call holds at once; tensors that have shapes but no memory will do."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


def stored_bytes(*networks: nn.Module) -> int:
    """Return the bytes of all parameters and buffers of `networks`, shared ones once; of quantized weights, of their
    values and scales."""
    tensors = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    return sum({id(tensor): tensor.numel() * tensor.element_size() for tensor in _plain(tensors)}.values())


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most bytes of tensors made by `call` that are there at once, its result included.

    Attention is counted as fused kernels run it: without a matrix of all pairs of tokens. What single kernels need
    beside inputs and outputs is not counted.
    """
    with torch.inference_mode(), _FusedAttention(), _Alive() as alive:
        result = call()
    del result
    return alive.peak


class _Alive(TorchDispatchMode):
    """Follows the storages that operations make, until they are freed.

    An operation on tensors without memory is computed once for the shapes of its arguments: the alike blocks of a
    network repeat it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = WeakIdKeyDictionary()
        self._shapes: dict[Any, Callable[[], torch.Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = func, _described(args), _described(kwargs)
        if call in self._shapes:
            result = self._shapes[call]()
            self._add(result.untyped_storage())
            return result
        given = {id(storage) for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        made = [storage for storage in _storages(result) if id(storage) not in given and storage not in self._known]
        for storage in made:
            self._add(storage)
        if made and type(result) is torch.Tensor and result.is_meta and not func._schema.is_mutable:
            self._shapes[call] = partial(
                torch.empty_strided, result.shape, result.stride(), dtype=result.dtype, device="meta"
            )
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._known[storage] = None
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, size: int) -> None:
        self._now -= size


def _described(argument: Any) -> Any:
    """Return all that the shape of a result depends on: of tensors everything but their values."""
    if isinstance(argument, torch.Tensor):
        return type(argument), argument.dtype, argument.device, argument.shape, argument.stride()
    if isinstance(argument, dict):
        return tuple((name, _described(value)) for name, value in argument.items())
    if isinstance(argument, list | tuple):
        return tuple(map(_described, argument))
    return type(argument), argument


class _FusedAttention(TorchFunctionMode):
    """Computes no attention, and returns memory for its result: on tensors without memory PyTorch takes the path that
    makes the matrix."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = (*args, *(kwargs or {}).values())[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, torch.Tensor):
            yield from (tensor.untyped_storage() for tensor in _plain([leaf]))


def _plain(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The tensors that subclasses such as torchao's are made of, and those that are plain."""
    for tensor in tensors:
        if hasattr(tensor, "__tensor_flatten__"):
            yield from _plain(getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        else:
            yield tensor
