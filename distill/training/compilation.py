"""Compilation of a network's repeated blocks."""

from collections.abc import Sequence

import torch
from torch import nn


def compile_blocks(blocks: Sequence[nn.Module]) -> None:
    """Compile every block in place."""
    # All blocks share one code object, and so one limit, beyond which they would run eager: each block is compiled
    # with and without gradients.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * len(blocks))
    for block in blocks:
        # Not the whole call, which has the hooks that gather a sharded block.
        block.forward = torch.compile(block.forward, fullgraph=True)
