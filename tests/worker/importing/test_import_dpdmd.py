"""A checkpoint of the authors' script becomes a folder that is sampled as they sample it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from typer.testing import CliRunner, Result

from fourstep import app
from worker.families.prompt_embeddings import stacked
from worker.model_folder import loading
from worker.sampling import noise
from worker.sampling import step_table as sampler
from worker.testing import tiny_pipelines, tiny_sdxl_pipelines

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    pipeline = tiny_pipelines.build()
    pipeline.scheduler.register_to_config(shift=3.0)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _state() -> State:
    """A student's weights as their script saves them: the transformer's state dict in bfloat16, and nothing else."""
    state = tiny_pipelines.build().transformer.state_dict()
    return {name: (1.5 * value).bfloat16() for name, value in state.items()}


def _import(content: object, base: Path, folder: Path) -> Result:
    torch.save(content, folder / "student_transformer.pt")
    arguments = [str(folder / "student_transformer.pt"), "--base", str(base), "--out", str(folder / "out")]
    return CliRunner().invoke(app, ["import-dpdmd", *arguments])


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod._fsdp_wrapped_module."])
def test_the_folder_holds_their_weights_and_is_sampled_as_they_sample_it(
    prefix: str, base: Path, tmp_path: Path
) -> None:
    state = _state()
    result = _import({prefix + name: value for name, value in state.items()}, base, tmp_path)
    assert result.exit_code == 0, result.stderr
    written = SD3Transformer2DModel.from_pretrained(tmp_path / "out" / "transformer", dtype=torch.bfloat16).state_dict()
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)
    model = loading.load(str(tmp_path / "out"), dtype="float32")
    assert model.contract.sigmas is not None
    # By hand from the scheduler's formula, shift 3: σ = 3u / (1 + 2u), for u from 1 to σ(0.001), shifted once more.
    low = 0.003 / 1.002
    by_hand = [3 * u / (1 + 2 * u) for u in torch.linspace(1, low, 4, dtype=torch.float64).tolist()]
    assert model.contract.sigmas == pytest.approx([*by_hand, 0.0], abs=1e-6)
    assert (model.contract.steps, model.contract.guidance_scale, model.contract.method) == (4, 1.0, "dp-dmd")
    theirs = _as_they_sample(base, state)
    with torch.inference_mode():
        batch = stacked(model.network.encode(["a red cat"]))
        ours = sampler.sample(model.table, lambda x, t: model.network.predict(x, t, batch), noise.draw(3, (4, 16, 16)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def _as_they_sample(base: Path, state: State) -> torch.Tensor:
    """Their test script's way: the base pipeline with the weights put in, four steps of its scheduler, no guidance."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(base)
    pipeline.transformer.load_state_dict(state)
    return pipeline(
        "a red cat",
        num_inference_steps=4,
        guidance_scale=1.0,
        latents=noise.draw(3, (4, 16, 16)),
        max_sequence_length=tiny_pipelines.TOKENS,
        output_type="latent",
    ).images


def _without(state: State) -> State:
    del state["proj_out.weight"]
    return state


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without, "1 missing: proj_out.weight"),
        (lambda state: state | {"colour": torch.zeros(1)}, "1 extra: colour"),
        (lambda state: state | {"proj_out.bias": torch.zeros(3)}, "1 of another shape: proj_out.bias (3,) instead of"),
        (lambda state: {"student": state}, "a network's state dict"),
        (lambda state: {}, "67 missing: "),
        (lambda state: Path("not tensors"), "not a checkpoint of tensors alone"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_by_key(
    spoil: Callable[[State], object], said: str, base: Path, tmp_path: Path
) -> None:
    result = _import(spoil(_state()), base, tmp_path)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_base_of_another_family_is_refused(tmp_path: Path) -> None:
    result = _import(_state(), tiny_sdxl_pipelines.save(tmp_path / "sdxl"), tmp_path)
    assert (result.exit_code, "made for sd3, but" in result.stderr) == (1, True)
