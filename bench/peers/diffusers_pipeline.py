"""diffusers' own pipeline, loaded and called as its users do; the student's grid is read from its folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from bench.peers import settings
from bench.peers.engine import Draw


def load() -> Draw:
    pipeline = StableDiffusion3Pipeline.from_pretrained(settings.MODEL)
    pipeline.scheduler.set_shift(1.0)  # the grid is taken as it is
    pipeline.set_progress_bar_config(disable=True)
    grid = json.loads((Path(settings.MODEL) / "sampling.json").read_text())

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        images = pipeline(
            list(prompts),
            sigmas=grid["sigmas"][:-1],
            num_inference_steps=grid["steps"],
            guidance_scale=grid["guidance_scale"],
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            height=grid["sizes"][0][0],
            width=grid["sizes"][0][1],
            max_sequence_length=grid["max_sequence_length"],
        ).images
        return list(images)

    return draw
