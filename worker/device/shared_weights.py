"""Two modules on one set of weights."""

import copy

import torch


def copy_sharing_weights(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of the module tree that shares every tensor."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})
