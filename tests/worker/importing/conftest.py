"""Tiny pipelines that files are imported on."""

from pathlib import Path

import pytest

from worker.testing import tiny_flux_pipelines, tiny_pipelines, tiny_qwen3_pipelines, tiny_sd_pipelines
from worker.testing import tiny_sdxl_pipelines as tiny_sdxl


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    models = tmp_path_factory.mktemp("models")
    pipelines = {
        "sdxl": tiny_sdxl.build(),
        "sd": tiny_sd_pipelines.build(),
        "sd3": tiny_pipelines.build(),
        "schnell": tiny_flux_pipelines.build(),
        "dev": tiny_flux_pipelines.build(guidance_embeds=True),
        "klein": tiny_qwen3_pipelines.klein(),
    }
    for name, pipeline in pipelines.items():
        pipeline.save_pretrained(models / name, safe_serialization=True)
    return {name: models / name for name in pipelines}
