"""Bring the networks of a loaded pipeline to their devices, some with weights of eight bits."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from worker.device.bfloat16 import has_native_bfloat16
from worker.errors import StartFailedError
from worker.families.base import Family

TextEncoders = Literal["device", "cpu", "int8"]
Quantize = Literal["int8", "fp8"]

CPU = torch.device("cpu")

FP8_CAPABILITY = (8, 9)
"""Since Ada and Hopper. Without it the compiler makes no code that reads such weights."""


def place(
    pipeline: Any, family: Family, device: torch.device, text_encoders: TextEncoders, quantize: Quantize | None
) -> None:
    """Move the pipeline's networks to `device`.

    Text encoders stay on the CPU, in the number format that it computes in, or have int8 weights, as `text_encoders`
    says. `quantize` is the format of the weights of the linear layers in the denoiser's blocks, in which nearly all
    weights are; they are computed with in the network's own format. Raises ModuleNotFoundError without torchao, and
    StartFailedError for fp8 on a GPU that has none.
    """
    if quantize == "fp8" and device.type == "cuda" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise StartFailedError("FOURSTEP_QUANTIZE: fp8 needs a GPU of compute capability 8.9 or higher; int8 does not")
    for name, network in pipeline.components.items():
        if not isinstance(network, nn.Module):
            continue
        if name in family.text_components and text_encoders == "cpu" and device.type != "cpu":
            network.to(torch.bfloat16 if has_native_bfloat16(CPU) else torch.float32)
            # Memory that is never written takes none.
            network.to_empty(device=CPU) if network.device.type == "meta" else network.to(CPU)
            continue
        if name in family.text_components and text_encoders == "int8":
            quantize_weights([network], "int8", device)
        elif name == family.denoiser and quantize:
            quantize_weights(family.blocks(network), quantize, device)
        network.to(device)
        tie: Any = getattr(network, "tie_weights", None)
        if device.type == "meta" and tie:
            tie()  # what shares memory elsewhere is made anew there, each by itself


def quantize_weights(parts: Sequence[nn.Module], kind: Quantize, device: torch.device) -> None:
    """Give all linear layers of `parts` weights of eight bits, and move these parts to `device`.

    Raises ModuleNotFoundError without torchao.
    """
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it warns of kernels for other devices
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    # Left as it is: the compiler's configuration is the process's own.
    config = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[kind](set_inductor_config=False)
    for part in parts:
        quantize_(part, config, device=device)  # layer by layer, so that the device never holds the whole in full
