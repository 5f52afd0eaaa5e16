"""Our sampler as a library, on the runtime that our worker has, without our engine, rule or queue."""

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from bench.peers import settings
from bench.peers.engine import Draw
from worker.generate import generate_batch
from worker.model_folder.loading import load as load_model


def load() -> Draw:
    model = load_model(settings.MODEL)
    model = replace(model, network=model.network.converted())

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        return [Image.fromarray(pixels) for pixels in generate_batch(model, prompts, seeds)]

    return draw
