"""One batch without an engine gives the pictures that the engine gives."""

import numpy as np
import pytest

from worker.engine.engine import Engine
from worker.generate import generate, generate_batch
from worker.model_folder.loading import LoadedModel, served
from worker.testing import tiny_pipelines

PROMPTS, SEEDS = ["a red cat", "sun", "sun"], [7, 8, 9]


def test_every_image_is_the_engines(tiny_model: LoadedModel, engine: Engine) -> None:
    batch = generate_batch(tiny_model, PROMPTS, SEEDS)
    alone = [generate(engine, [prompt], [seed])[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert batch.shape == (3, 64, 64, 3)
    assert np.abs(batch.astype(int) - np.stack(alone)).max() <= 1
    assert np.array_equal(generate_batch(tiny_model, PROMPTS[:1], SEEDS[:1])[0], alone[0])


def test_it_takes_sizes_of_the_contract(tiny_model: LoadedModel) -> None:
    assert generate_batch(tiny_model, PROMPTS, SEEDS, (32, 64)).shape == (3, 32, 64, 3)


@pytest.mark.parametrize("changes", [{"guidance_scale": 3.0}, {"sampler": "re-noise"}])
def test_guidance_and_fresh_noise_are_the_engines(changes: dict) -> None:
    model = served("tiny", "0" * 64, tiny_pipelines.contract(**changes), tiny_pipelines.build())
    batch = generate_batch(model, PROMPTS[:2], SEEDS[:2])
    expected = generate(Engine(model, max_batch=2), PROMPTS[:2], SEEDS[:2])
    assert np.abs(batch.astype(int) - expected).max() <= 1
