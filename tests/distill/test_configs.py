"""The configurations that come with the package."""

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler

from distill import config
from docs.examples import first_hour

CONFIGS = Path(config.__file__).parent / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_it_is_sound(path: Path) -> None:
    assert config.load(path).method_name == "dp-dmd"


@pytest.mark.parametrize(("name", "steps"), [("student_grid", 4), ("teacher_grid", 30)])
def test_sd35m_is_sampled_on_the_authors_grids(name: str, steps: int) -> None:
    """diffusers' scheduler at shift 3, which shifts its smallest noise level twice."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    grid = getattr(config.load(CONFIGS / "sd35m.yaml"), name).resolve("sd3")
    assert grid == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)


def test_sdxl_starts_at_pure_noise_and_ends_at_the_image() -> None:
    settings = config.load(CONFIGS / "sdxl.yaml")
    assert settings.student_grid.resolve("sdxl") == (999.0, 749.0, 499.0, 249.0, -1.0)
    assert settings.teacher_grid.resolve("sdxl")[0] == 999.0


@pytest.mark.parametrize(("able", "precision"), [({}, "no"), ({"avx512_bf16": True}, "bf16")])
def test_auto_precision_is_settled_for_this_machine_when_the_configuration_is_read(
    able: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert config.load(CONFIGS / "emoji.yaml").precision == precision


def test_the_first_hours_run_is_the_published_configuration_but_for_its_length(tmp_path: Path) -> None:
    """docs/examples/first_hour.py takes minutes; what it changes is sound, and leaves every size alone."""
    settings = yaml.safe_load(first_hour.CONFIG.read_text())
    paths = {"teacher": tmp_path, "prompts": tmp_path}
    made = config.DistillConfig.model_validate(settings | first_hour.QUICK | paths)
    assert made.student_grid == config.load(first_hour.CONFIG).student_grid
    assert not first_hour.QUICK.keys() & {"student_grid", "max_sequence_length", "method", "lambda"}
