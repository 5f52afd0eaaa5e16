"""The GPUs on which the installed PyTorch computes; it is asked in processes of their own."""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from subprocess import DEVNULL

from jobs.gpus import VISIBLE

COMPUTE = "import torch; torch.ones(1, device='cuda').sum().item()"
"""Fails with PyTorch's build for the CPU, with a driver that is too old, and on a GPU that it has no kernels for."""

log = logging.getLogger(__name__)


async def usable_gpus(gpus: Sequence[str]) -> list[str]:
    """Return those of `gpus`, named as CUDA_VISIBLE_DEVICES may hold them, on which PyTorch computes."""
    computes = await asyncio.gather(*map(_computes, gpus))
    if refused := [gpu for gpu, able in zip(gpus, computes, strict=True) if not able]:
        log.warning("no worker for GPU %s: the installed PyTorch does not compute on it", ", ".join(refused))
    return [gpu for gpu in gpus if gpu not in refused]


async def _computes(gpu: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", COMPUTE, env=os.environ | {VISIBLE: gpu}, stdout=DEVNULL, stderr=DEVNULL
    )
    return await process.wait() == 0
