"""Text encoders apart from the denoiser, and weights of eight bits."""

from typing import Any

import numpy as np
import pytest
import torch

from bench.engine.quantization import psnr
from jobs.settings import BUNDLED_MODEL, WorkerSettings
from worker.engine.engine import Engine
from worker.families import registry
from worker.families.network import Network
from worker.generate import generate
from worker.memory.counting import stored_bytes
from worker.model_folder.loading import LoadedModel, load
from worker.model_folder.placing import place
from worker.startup import compiler_for
from worker.testing import tiny_pipelines
from worker.testing.tiny_families import BUILDS

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", BUILDS)
def test_text_encoders_on_the_cpu_serve_a_denoiser_elsewhere(name: str) -> None:
    """The device that only has shapes stands for a GPU."""
    pipeline = BUILDS[name]()
    family = registry.of(pipeline)
    here = Network(family, pipeline).encode(["sun"])
    place(pipeline, family, torch.device("meta"), "cpu", None)
    assert {pipeline.vae.device.type, getattr(pipeline, family.denoiser).device.type} == {"meta"}
    (there,) = Network(family, pipeline).encode(["sun"])
    assert {part.device.type for part in there.parts.values()} == {"meta"}
    assert {key: part.shape for key, part in there.parts.items()} == {
        key: part.shape for key, part in here[0].parts.items()
    }


def test_on_a_cpu_they_are_where_everything_is() -> None:
    pipeline = tiny_pipelines.build()
    place(pipeline, registry.of(pipeline), CPU, "cpu", None)
    assert pipeline.text_encoder_3.dtype == torch.float32


PROMPTS = ["a smiling cat face", "a red apple", "fire", "a house"]


@pytest.fixture(scope="module")
def student() -> LoadedModel:
    return load(str(BUNDLED_MODEL), "cpu", "float32")


def drawn(model: LoadedModel) -> np.ndarray:
    return generate(Engine(model, 4), PROMPTS, [0, 1, 2, 3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "least", "smaller"),
    [
        ({"quantize": "int8"}, 30.0, "transformer"),
        ({"quantize": "fp8"}, 22.0, "transformer"),
        ({"text_encoders": "int8"}, 28.0, "text_encoder_3"),
    ],
    ids=["int8", "fp8", "int8 text encoders"],
)
def test_the_bundled_student_draws_nearly_the_same_with_weights_of_eight_bits(
    student: LoadedModel, how: dict[str, Any], least: float, smaller: str
) -> None:
    model = load(str(BUNDLED_MODEL), "cpu", "float32", **how)
    plain, packed = (getattr(each.network.pipeline, smaller) for each in (student, model))
    assert stored_bytes(packed) < 0.6 * stored_bytes(plain)
    difference = psnr(drawn(model), drawn(student))
    assert least < difference < 100, "the same bits: nothing was quantized"


def test_weights_of_eight_bits_stay_with_pytorch_on_a_cpu() -> None:
    assert compiler_for(WorkerSettings(), CPU) == "openvino"
    assert compiler_for(WorkerSettings(quantize="int8"), CPU) is None
    assert compiler_for(WorkerSettings(text_encoders="int8"), CPU) is None
    assert compiler_for(WorkerSettings(text_encoders="cpu"), CPU) == "openvino"
    assert compiler_for(WorkerSettings(quantize="fp8", compile=True), CPU) == "inductor"


def test_without_torchao_the_setting_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.settings.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install '\.\[quantize\]'"):
        WorkerSettings(quantize="int8")
    assert WorkerSettings().quantize is None
