"""Modules whose forward passes OpenVINO runs on the CPU."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

# OpenVINO reports its use, and makes files in the home folder, when this package can be imported with it.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402

from worker.device.bfloat16 import has_native_bfloat16  # noqa: E402

log = logging.getLogger(__name__)

Forward = Callable[..., Any]


class OpenVINORuntime:
    """Runs modules in `dtype` (float32 or bfloat16) on `threads` threads, each module in one thread at a time.

    Where the processor has no bfloat16 of its own, modules of bfloat16 are computed in float32.

    A call with tensors of new shapes converts the module for these, and for any first dimension of each tensor: the
    rows. After `seal` such a call runs in PyTorch, and so does a module that cannot be converted.
    """

    def __init__(self, dtype: torch.dtype, threads: int) -> None:
        self._core = ov.Core()
        self._threads = threads
        native = dtype == torch.bfloat16 and has_native_bfloat16(torch.device("cpu"))
        self._precision = "bf16" if native else "f32"
        self._sealed = False

    def take_over(self, module: nn.Module) -> None:
        """Run all forward passes of `module` from the next on; results that are not integers are float32."""
        module.forward = partial(self._call, module, module.forward, {})

    def seal(self) -> None:
        """Convert nothing more."""
        self._sealed = True

    def _call(
        self, module: nn.Module, forward: Forward, converted: dict[Any, "_Converted | None"], *args: Any, **named: Any
    ) -> Any:
        leaves, spec = tree_flatten((args, named))
        shapes = tuple((leaf.shape[1:], leaf.dtype) if _is_tensor(leaf) else leaf for leaf in leaves)
        if (spec, shapes) not in converted:
            if self._sealed:
                return forward(*args, **named)
            converted[spec, shapes] = self._converted(_OfTensors(module, forward, leaves, spec))
        found = converted[spec, shapes]
        return found(filter(_is_tensor, leaves)) if found else forward(*args, **named)

    def _converted(self, module: "_OfTensors") -> "_Converted | None":
        try:
            return self._convert(module)
        except RuntimeError as error:
            why = str(error).strip().partition("\n")[0]
            log.warning("%s stays with PyTorch: %s: %s", type(module.module).__name__, type(error).__name__, why)
            return None

    def _convert(self, module: "_OfTensors") -> "_Converted":
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is fixed by tracing is part of the key
            example = tuple(tensor.clone() for tensor in module.example)
            model = ov.convert_model(module, example_input=example)
        shapes = [[-1, *tensor.shape[1:]] if tensor.ndim else [] for tensor in example]
        model.reshape({port: ov.PartialShape(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
        model = _with_float32_ports(model)
        waves = self._compile(_cut_waves(model), "f32") if self._precision == "bf16" and _waves(model) else None
        assert module.results is not None
        return _Converted(waves, self._compile(model, self._precision), module.are_tensors, module.results)

    def _compile(self, model: ov.Model, precision: str) -> ov.InferRequest:
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # or all workers of a machine would share its first cores
        }
        return self._core.compile_model(model, "CPU", options).create_infer_request()


class _OfTensors(nn.Module):
    """`module` as a function of the tensors among the arguments of one call; the others keep their values."""

    def __init__(self, module: nn.Module, forward: Forward, leaves: Sequence[Any], spec: TreeSpec) -> None:
        super().__init__()
        self.module = module
        self.example = [leaf for leaf in leaves if _is_tensor(leaf)]
        self.are_tensors: list[bool] = []
        self.results: TreeSpec | None = None
        self._forward, self._leaves, self._arguments = forward, leaves, spec

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        left = iter(tensors)
        leaves = [next(left) if _is_tensor(leaf) else leaf for leaf in self._leaves]
        args, named = tree_unflatten(leaves, self._arguments)
        results, self.results = tree_flatten(self._forward(*args, **named))
        self.are_tensors = [_is_tensor(leaf) for leaf in results]
        return tuple(filter(_is_tensor, results))


class _Converted:
    """A compiled model; `waves` computes its last inputs from the first, if any. What is no tensor among the results,
    such as the cache of a language model, is None."""

    def __init__(
        self, waves: ov.InferRequest | None, model: ov.InferRequest, are_tensors: Sequence[bool], results: TreeSpec
    ) -> None:
        self._waves, self._model, self._are_tensors, self._results = waves, model, are_tensors, results

    def __call__(self, tensors: Any) -> Any:
        inputs = [_array(tensor) for tensor in tensors]
        if self._waves is not None:
            inputs += _run(self._waves, inputs)
        left = iter(_run(self._model, inputs))
        leaves = [torch.from_numpy(next(left)) if is_tensor else None for is_tensor in self._are_tensors]
        return tree_unflatten(leaves, self._results)


def _run(request: ov.InferRequest, inputs: list[np.ndarray]) -> list[np.ndarray]:
    results = request.infer(inputs, share_inputs=True)
    return [results[number] for number in range(len(results))]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def _with_float32_ports(model: ov.Model) -> ov.Model:
    """Let inputs and outputs of bfloat16, which numpy does not know, be float32."""
    ports = ov.preprocess.PrePostProcessor(model)
    for number, port in enumerate(model.inputs):
        if port.element_type == ov.Type.bf16:
            ports.input(number).tensor().set_element_type(ov.Type.f32)
    for number, port in enumerate(model.outputs):
        if port.element_type == ov.Type.bf16:
            ports.output(number).tensor().set_element_type(ov.Type.f32)
    return ports.build()


def _waves(model: ov.Model) -> list[ov.Output]:
    return [node.output(0) for node in model.get_ordered_ops() if node.get_type_name() in ("Sin", "Cos")]


def _cut_waves(model: ov.Model) -> ov.Model:
    """Make the sines and cosines of `model` inputs of it, and return the model that computes them.

    OpenVINO would round their arguments to bfloat16: a timestep of 750 radians would be off by up to 2. PyTorch's
    networks compute them in float32.
    """
    whole = model.clone()
    for wave in _waves(model):
        given = ov.opset13.parameter(wave.get_partial_shape(), wave.get_element_type())
        for reader in wave.get_target_inputs():
            reader.replace_source_output(given.output(0))
        model.add_parameters([given])
    model.validate_nodes_and_infer_types()
    return ov.Model(_waves(whole), whole.get_parameters())


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)
