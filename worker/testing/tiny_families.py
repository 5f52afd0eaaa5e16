"""A tiny pipeline of each family."""

from collections.abc import Callable
from typing import Any

from worker.testing import (
    tiny_flux_pipelines,
    tiny_pipelines,
    tiny_qwen3_pipelines,
    tiny_qwen_image_pipelines,
    tiny_sana_pipelines,
    tiny_sd_pipelines,
    tiny_sdxl_pipelines,
)

BUILDS: dict[str, Callable[[], Any]] = {
    "sd": tiny_sd_pipelines.build,
    "sdxl": tiny_sdxl_pipelines.build,
    "sd3": tiny_pipelines.build,
    "flux": tiny_flux_pipelines.build,
    "flux2-klein": tiny_qwen3_pipelines.klein,
    "z-image": tiny_qwen3_pipelines.z_image,
    "qwen-image": tiny_qwen_image_pipelines.build,
    "sana-sprint": tiny_sana_pipelines.build,
}
