"""The memory of a model by shapes: of published sizes, beside figures counted otherwise, and of models that are run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ByteSize
from torch import nn
from typer.testing import CliRunner

from fourstep import app
from jobs.sampling_contract import SamplingContract
from worker.memory import report
from worker.memory.counting import peak_bytes, stored_bytes
from worker.memory.plan import RESERVE, SHAPES_ONLY, Batch, Fit, batch, fit, weights
from worker.model_folder.contract import own_contract
from worker.model_folder.loading import LoadedModel, load, served
from worker.model_folder.placing import place
from worker.testing import published_pipelines
from worker.testing.tiny_families import BUILDS

GIB, MIB = 2**30, 2**20
SMALL = (128, 128)


# Counting


def test_what_is_freed_on_the_way_does_not_add_up() -> None:
    def call() -> torch.Tensor:
        made = torch.empty(MIB, dtype=torch.uint8, device="meta")
        for _ in range(3):
            made = made + 1  # both are there at once, then the older one goes
        return made[: MIB // 2]  # a view of it takes nothing

    assert peak_bytes(call) == 2 * MIB


def test_attention_makes_no_matrix_of_all_pairs_of_tokens() -> None:
    def call() -> torch.Tensor:
        query = torch.empty(1, 4, 4096, 64, device="meta")
        return nn.functional.scaled_dot_product_attention(query, query, value=query)

    assert peak_bytes(call) == 2 * 4 * 4096 * 64 * 4


def test_shared_weights_count_once() -> None:
    layer = nn.Linear(8, 8, bias=False)
    other = nn.Linear(8, 8, bias=False)
    other.weight = layer.weight
    assert stored_bytes(layer, other) == 8 * 8 * 4


# Models that are run: what is counted by shapes is what is there


@pytest.mark.parametrize(("name", "guidance"), [*((name, 1.0) for name in BUILDS), ("sd3", 3.0), ("sdxl", 3.0)])
def test_shapes_hold_as_many_bytes_as_tensors_do(name: str, guidance: float) -> None:
    pipeline = BUILDS[name]()
    contract = own_contract(pipeline, 2, guidance)
    size = min(contract.sizes[0], SMALL)  # more pixels add no other tensors
    contract = own_contract(pipeline, 2, guidance, [size])
    here = served("here", "0" * 64, contract, pipeline)
    counted = weights(here), [batch(here, size, rows) for rows in (1, 3)]
    place(pipeline, here.network.family, SHAPES_ONLY, "device", None)
    shapes = served("shapes", "0" * 64, contract, pipeline)
    found = [batch(shapes, size, rows) for rows in (1, 3)]
    assert weights(shapes) == counted[0]
    assert [each.decode for each in found] == [each.decode for each in counted[1]]
    # PyTorch's kernels of a CPU make one temporary fewer for a single row of Qwen-Image, of any size.
    near = MIB // 2 if name == "qwen-image" else 0
    assert [each.step for each in found] == pytest.approx([each.step for each in counted[1]], rel=0, abs=near)
    assert min(found[0].step, found[0].decode) > 0


def test_the_weights_are_those_of_the_files(tiny_folder: Path) -> None:
    model = load(str(tiny_folder), device="meta", dtype="float32")
    denoiser = tiny_folder / "transformer" / "diffusion_pytorch_model.safetensors"
    header = int.from_bytes(denoiser.read_bytes()[:8], "little") + 8
    positions = model.network.denoiser.pos_embed.pos_embed.nbytes  # made anew, not saved
    assert weights(model)["denoiser"] - denoiser.stat().st_size + header in (0, positions)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", BUILDS)
def test_shapes_are_had_without_memory_for_weights(tmp_path: Path, name: str, dtype: str) -> None:
    BUILDS[name]().save_pretrained(tmp_path)
    whole, shapes = (load(str(tmp_path), device=device, dtype=dtype) for device in ("cpu", "meta"))
    assert weights(shapes) == weights(whole)
    networks = [part for part in shapes.network.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {weight.device.type for network in networks for weight in network.parameters()} == {"meta"}


def test_weights_of_eight_bits_and_encoders_elsewhere_are_smaller(tiny_folder: Path) -> None:
    whole, packed, apart = (
        weights(load(str(tiny_folder), device="meta", dtype="bfloat16", text_encoders=encoders, quantize=quantize))
        for encoders, quantize in (("device", None), ("int8", "int8"), ("cpu", "fp8"))
    )
    assert whole["decoder"] == packed["decoder"] == apart["decoder"]
    assert 0 == apart["text encoders"] < packed["text encoders"] < whole["text encoders"]
    assert apart["denoiser"] < whole["denoiser"] > packed["denoiser"]


# Published sizes

SIDES = (512, 1024)
SD35M_STEP = 0.17
"""GiB of a step of an image of 1024² by Stable Diffusion 3.5 Medium in bfloat16, counted apart from this."""


@pytest.fixture(scope="module")
def sd35m() -> LoadedModel:
    return _served(published_pipelines.stable_diffusion_3(SHAPES_ONLY), {"max_sequence_length": 256})


@pytest.fixture(scope="module")
def sdxl() -> LoadedModel:
    return _served(published_pipelines.stable_diffusion_xl(SHAPES_ONLY), {})


def _served(pipeline: Any, changes: dict[str, Any]) -> LoadedModel:
    contract = own_contract(pipeline, 4, sizes=[(1024, 1024), (512, 512)])
    contract = SamplingContract.model_validate(contract.model_dump() | changes)
    return served("published", "0" * 64, contract, pipeline)


@pytest.mark.slow
def test_stable_diffusion_3_5_medium(sd35m: LoadedModel) -> None:
    small, large = (_one_of_all_batches(sd35m, side) for side in SIDES)
    assert large.step / GIB == pytest.approx(SD35M_STEP, rel=0.02)
    assert 0.25 * large.step < small.step < 0.31 * large.step
    assert [each.decode / GIB for each in (small, large)] == pytest.approx([1.5 / 4, 1.5], rel=0.01)
    parts = {name: round(size / GIB, 1) for name, size in weights(sd35m).items()}
    assert parts == {"text encoders": 10.4, "denoiser": 4.6, "decoder": 0.2}
    _check_table(sd35m, small, large)


@pytest.mark.slow
def test_sdxl(sdxl: LoadedModel) -> None:
    small, large = (_one_of_all_batches(sdxl, side) for side in SIDES)
    assert 0.25 * large.step < small.step < 0.31 * large.step
    assert [each.decode / GIB for each in (small, large)] == pytest.approx([1.5 / 4, 1.5], rel=0.01)
    parts = {name: round(size / GIB, 1) for name, size in weights(sdxl).items()}
    assert parts == {"text encoders": 1.5, "denoiser": 4.8, "decoder": 0.2}
    _check_table(sdxl, small, large)


def _one_of_all_batches(model: LoadedModel, side: int) -> Batch:
    """Count batches of 1 to 8 images of `side`² pixels, of which each takes as much as a single one; returns that."""
    one, *more = (batch(model, (side, side), rows) for rows in range(1, 9))
    assert [(each.step, each.decode) for each in more] == [(n * one.step, n * one.decode) for n in range(2, 9)]
    return one


def _check_table(model: LoadedModel, *counted: Batch) -> None:
    told, fits = report.lines(model, 24 * 10**9)
    assert fits
    for one in counted:
        table = dict(line.split(maxsplit=1) for line in _table("\n".join(told), f"{one.size[1]}×{one.size[0]}"))
        for rows in (1, 2, 4, 8):
            sizes = [ByteSize(rows * each).human_readable() for each in (one.step, one.decode)]
            assert table[str(rows)].split() == sizes


# What fits


def test_the_largest_step_comes_first_then_what_can_be_decoded_beside_it() -> None:
    counted = [Batch((64, 64), rows, step=rows * GIB, decode=4 * rows * GIB) for rows in (1, 2, 4)]
    assert fit(counted, 2 * GIB, RESERVE + 10 * GIB) == Fit((64, 64), 4, 1)
    assert fit(counted, 2 * GIB, RESERVE + 14 * GIB) == Fit((64, 64), 4, 2)
    assert fit(counted, 2 * GIB, RESERVE + 8 * GIB) == Fit((64, 64), 2, 1)
    assert fit(counted, 2 * GIB, RESERVE + 7 * GIB) == Fit((64, 64), 1, 1)
    assert fit(counted, 2 * GIB, RESERVE + 7 * GIB - 1) is None


@pytest.fixture
def command() -> Callable[..., Any]:
    return lambda *arguments: CliRunner().invoke(app, ["models", "check", *map(str, arguments)])


def test_the_command_says_what_fits(tiny_folder: Path, command: Callable[..., Any]) -> None:
    result = command(tiny_folder, "--gpu-memory", "24GB")
    assert result.exit_code == 0, result.stderr
    assert "64×64 fits 22.4GiB: 64 images a step, decoded 64 at once" in result.stdout
    model = load(str(tiny_folder), device="meta", dtype="bfloat16")
    for size in model.contract.sizes:
        counted = batch(model, size, 8)
        (line,) = [line.split() for line in _table(result.stdout, f"{size[1]}×{size[0]}") if line.split()[0] == "8"]
        assert line == ["8", *(ByteSize(each).human_readable() for each in (counted.step, counted.decode))]


def _table(output: str, size: str) -> list[str]:
    lines = output.splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.split()[:2] == [size, "images"]]
    return lines[first + 1 : first + 8]


def test_the_command_fails_where_a_picture_does_not_fit(
    tiny_folder: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = command(tiny_folder, "--gpu-memory", "1GiB")
    assert result.exit_code == 1
    assert "64×64 does not fit 1.0GiB" in result.stdout
    assert "FOURSTEP_QUANTIZE" in result.stdout
    wrong = command(tiny_folder, "--gpu-memory", "much")
    assert wrong.exit_code == 2
    assert "24GiB" in wrong.stderr
