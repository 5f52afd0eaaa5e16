"""The engine that a peer serves: prompts and seeds to pictures, one batch at a time."""

import base64
import io
import os
from collections.abc import Callable, Sequence
from importlib import import_module

from PIL import Image

from bench.peers import settings

Draw = Callable[[Sequence[str], Sequence[int]], list[Image.Image]]

MODULES = {"diffusers": "diffusers_pipeline", "sampler": "our_sampler", "latency-model": "latency_engine"}


def load() -> Draw:
    """The engine of BENCH_ENGINE. It draws on the core of BENCH_MODEL_CORE and notes the size of every batch."""
    draw: Draw = import_module(f"bench.peers.{MODULES[settings.ENGINE]}").load()

    def draw_pinned(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        if settings.MODEL_CORE:
            os.sched_setaffinity(0, {int(settings.MODEL_CORE)})  # of this thread alone
        if settings.BATCH_LOG:
            with open(settings.BATCH_LOG, "a") as log:
                log.write(f"{len(prompts)}\n")
        return draw(prompts, seeds)

    draw(["warm-up"], [0])
    return draw_pinned


def png(image: Image.Image) -> str:
    """The picture as a PNG file, in base64."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
