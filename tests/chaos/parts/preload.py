"""The modules that diffusers imports lazily and a worker's start needs."""

from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

__all__ = [
    "AutoencoderTiny",
    "CLIPTextModelWithProjection",
    "CLIPTokenizer",
    "FlowMatchEulerDiscreteScheduler",
    "SD3Transformer2DModel",
    "StableDiffusion3Pipeline",
    "T5EncoderModel",
    "T5TokenizerFast",
]
