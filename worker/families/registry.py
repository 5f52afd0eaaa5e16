"""The model families that can be served and distilled: one line each."""

from typing import Any

from worker.families.base import Family
from worker.families.flux import Flux
from worker.families.flux_2_klein import Flux2Klein
from worker.families.qwen_image import QwenImage
from worker.families.sana_sprint import SanaSprint
from worker.families.stable_diffusion import StableDiffusion
from worker.families.stable_diffusion_3 import StableDiffusion3
from worker.families.stable_diffusion_xl import StableDiffusionXL
from worker.families.z_image import ZImage

FAMILIES: dict[str, Family] = {}
"""Name → family."""


def register(family: Family) -> Family:
    """Let pipelines of `family` be served and distilled."""
    FAMILIES[family.name] = family
    return family


STABLE_DIFFUSION_3 = register(StableDiffusion3())
STABLE_DIFFUSION_XL = register(StableDiffusionXL())
STABLE_DIFFUSION = register(StableDiffusion())
FLUX = register(Flux())
FLUX_2_KLEIN = register(Flux2Klein())
Z_IMAGE = register(ZImage())
QWEN_IMAGE = register(QwenImage())
SANA_SPRINT = register(SanaSprint())


def named(name: str) -> Family:
    """Return the family called `name`. Raises ValueError, naming all, for another."""
    if name not in FAMILIES:
        raise ValueError(f"{name} is none of the families {', '.join(FAMILIES)}")
    return FAMILIES[name]


def pipelines() -> dict[str, Family]:
    """Return diffusers' pipeline classes, as a folder's `model_index.json` names them, with their families."""
    return {name: family for family in FAMILIES.values() for name in family.pipelines}


def of(pipeline: Any) -> Family:
    """Return the family of a loaded pipeline. Raises ValueError for one of no known family."""
    name = type(pipeline).__name__
    if name not in pipelines():
        raise ValueError(f"{name} is none of the pipelines {', '.join(pipelines())}")
    return pipelines()[name]
