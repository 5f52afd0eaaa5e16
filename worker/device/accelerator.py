"""Requests to the accelerator behind a torch device: to finish, to give memory back, whether it works."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from worker.errors import DeviceLostError

OUT_OF_MEMORY = 2
"""CUDA's number for it, where the driver says so and not the allocator."""

SAID_FOR_OUT_OF_MEMORY = (
    "CUDA out of memory",  # this and the next within what the compiler raises
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",  # of the compiler's launcher
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",  # the same since cuDNN 9
    "unable to find an engine to execute this computation",  # each of cuDNN's needs more than there is
)
"""Words of libraries that ask the driver for memory themselves, in a RuntimeError without a number."""

memory_stays = threading.RLock()
"""Held while a graph is recorded: torch can give no memory back meanwhile, whichever thread asks."""


def has_accelerator(device: torch.device) -> bool:
    """Return whether work on `device` runs beside the host, with memory of its own; False for a CPU."""
    return device.type == "cuda"


def make_current(device: torch.device) -> None:
    """Let this thread's calls that name no device, as of a capture, mean `device`: else they mean the first, and take
    memory there."""
    if has_accelerator(device) and device.index is not None:
        torch.accelerator.set_device_index(device.index)


def is_idle(device: torch.device) -> bool:
    """Return whether the work that this thread gave `device` is done. Raises torch.AcceleratorError if it failed."""
    return not has_accelerator(device) or torch.accelerator.current_stream(device).query()


def wait_for(device: torch.device) -> None:
    """Wait until the work that this thread gave `device` is done. Raises torch.AcceleratorError if it failed."""
    if has_accelerator(device):
        torch.accelerator.current_stream(device).synchronize()


def free_memory(device: torch.device) -> None:
    """Give memory that no tensor uses back to `device`, after a graph that is being recorded."""
    if has_accelerator(device):
        with memory_stays:
            torch.accelerator.empty_cache()


@contextmanager
def held(nbytes: int, device: torch.device) -> Iterator[None]:
    """Keep so many bytes of the memory of `device` occupied meanwhile. Raises torch.OutOfMemoryError."""
    kept = torch.empty(nbytes, dtype=torch.uint8, device=device) if has_accelerator(device) else None
    yield
    del kept


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that the device has no memory left, after which it works as before."""
    if isinstance(error, torch.AcceleratorError):
        return getattr(error, "error_code", None) == OUT_OF_MEMORY
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(said in str(error) for said in SAID_FOR_OUT_OF_MEMORY)
    )


def lost(error: BaseException, device: torch.device) -> DeviceLostError | None:
    """Return what to raise when `error` came of a `device` that will fail whatever is asked of it from now on.

    After an illegal access, say, no call succeeds until the process has ended. Libraries report that by errors of their
    own, so that after any error the device is asked.
    """
    if isinstance(error, DeviceLostError):
        return error
    if not isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
        try:
            wait_for(device)
            return None
        except torch.AcceleratorError as later:
            if is_out_of_memory(later):  # of work launched before
                return None
            error = later
    return DeviceLostError(f"{device} has failed: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """Return the first line of the message: torch adds advice on further ones."""
    return str(error).partition("\n")[0]
