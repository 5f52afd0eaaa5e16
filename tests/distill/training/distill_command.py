"""`fourstep distill …`, in a process with all imports done."""

import diffusers
import transformers

import distill.runs  # noqa: F401
import fourstep

# Imported lazily by the libraries themselves: looked up here, so that no child has to.
LOADED = [
    diffusers.StableDiffusion3Pipeline,
    diffusers.StableDiffusionXLPipeline,
    transformers.CLIPTextModelWithProjection,
    transformers.T5EncoderModel,
]


def main(*arguments: str) -> None:
    fourstep.app(["distill", *arguments])
