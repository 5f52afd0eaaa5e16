"""Runs at the published sizes: latents, embeddings, pictures and grids of 1024², with networks of a few layers."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill import config as configuration
from distill import image_grid, memory, runs
from distill.training import checkpoints
from distill.training.telemetry import Telemetry
from jobs.sampling_contract import SamplingContract
from tests.distill.tiny_runs import losses_told
from worker.testing import real_size_pipelines
from worker.testing.real_size_pipelines import SIDE

CONFIGS = Path(configuration.__file__).parent / "configs"
CONFIG_OF = {"sd3": "sd35m.yaml", "sdxl": "sdxl.yaml"}


@pytest.mark.slow
def test_sixty_four_pictures_of_1024_pixels_are_a_grid_that_tensorboard_takes(tmp_path: Path) -> None:
    pictures = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None, None], (64, SIDE, SIDE, 3))
    image_grid.save_grid(pictures, 16, tmp_path / "grid-000050.png", scale=2)
    telemetry = Telemetry(tmp_path, 0)
    telemetry.grid(50)
    telemetry.close()
    (shown,) = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Images("grid")
    assert (shown.width, shown.height) == (16 * 256, 4 * 256)
    with Image.open(tmp_path / "grid-000050.png") as grid:
        cells = np.asarray(grid)[128::256, 128::256, 0]
    assert cells.flatten().tolist() == list(range(64))


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIG_OF)
def test_a_run_at_1024_pixels_comes_past_its_first_save_and_is_exported(tmp_path: Path, family: str) -> None:
    """The published configuration but for its length: fewer critic turns, and teacher steps."""
    teacher = real_size_pipelines.save(family, tmp_path / "teacher")
    (tmp_path / "prompts.txt").write_text("a red cat\na blue sun\n")
    settings = yaml.safe_load((CONFIGS / CONFIG_OF[family]).read_text())
    settings |= {"teacher": str(teacher), "prompts": str(tmp_path / "prompts.txt"), "precision": "no", "batch": 1}
    settings |= {"steps": 2, "save_every": 1, "log_every": 1, "critic_updates": 1, "critic_rollouts": 1}
    settings |= {"teacher_grid": {"steps": 5}, "anchor_k": 2}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    runs.start(tmp_path / "config.yaml", tmp_path / "run", tmp_path / "student")
    assert checkpoints.steps_of(tmp_path / "run") == [1, 2]
    assert [line["step"] for line in losses_told(tmp_path / "run")] == [1, 2]
    with Image.open(tmp_path / "run" / "grid-000002.png") as grid:
        assert grid.size == (2 * 256, 2 * 256)
    assert SamplingContract.load(tmp_path / "student").sizes == [(SIDE, SIDE)]
    (shard,) = (tmp_path / "run" / "embeddings").glob("shard-*.safetensors")
    foretold = memory.on_disk(configuration.load(tmp_path / "config.yaml")).embeddings
    assert shard.stat().st_size == pytest.approx(3 * foretold, rel=0.01), "two prompts and the empty one"
