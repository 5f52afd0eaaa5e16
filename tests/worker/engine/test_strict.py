"""Strict images are bit-identical whatever shares the batch, whichever slot they get, whenever they join."""

import random

import numpy as np
import pytest
import torch

from jobs.models import ImageTask
from tests.worker.tasks import PROMPTS, image_task, pictures, random_task
from worker.engine.engine import Engine
from worker.engine.row_starts.prompt_cache import PromptCache
from worker.engine.scheduler import buckets
from worker.families.prompt_embeddings import stacked
from worker.generate import generate
from worker.model_folder.loading import LoadedModel
from worker.sampling import noise

MAX_BATCH = 4


def _among_neighbours(engine: Engine, task: ImageTask, dice: random.Random) -> np.ndarray:
    """Run `task` beside neighbours that arrive before it, with it and after it."""
    tasks = {str(number): random_task(dice) for number in range(dice.randrange(1, 10))} | {"it": task}
    keys = list(tasks)
    dice.shuffle(keys)
    while True:
        while keys and (not engine.busy or dice.random() < 0.6):
            key = keys.pop()
            engine.add({key: tasks[key]})
        for outcome in engine.step():
            if outcome.key == "it":
                return outcome.pixels


@pytest.mark.slow
@pytest.mark.parametrize("start", range(4))
def test_strict_pixels_do_not_depend_on_the_company(tiny_model: LoadedModel, start: int) -> None:
    task = image_task(PROMPTS[start], seed=start, mode="strict", height=[64, 32][start % 2])
    alone = pictures(Engine(tiny_model, MAX_BATCH), [task])[0]
    assert alone.bucket == MAX_BATCH
    dice = random.Random(start)
    for _ in range(25):
        moved = task.model_copy(update={"created": dice.random()})
        assert np.array_equal(_among_neighbours(Engine(tiny_model, MAX_BATCH), moved, dice), alone.pixels)


def test_strict_embeddings_do_not_depend_on_the_company(tiny_model: LoadedModel) -> None:
    alone = PromptCache(tiny_model.network.encode, MAX_BATCH).get(["sun"], strict=True)[0]
    dice = random.Random(0)
    for _ in range(20):
        embeddings = PromptCache(tiny_model.network.encode, MAX_BATCH)
        embeddings.get(dice.sample(PROMPTS, 3), strict=False)
        company = [*dice.sample(PROMPTS, MAX_BATCH - 1), "sun"]
        dice.shuffle(company)
        found = embeddings.get(company, strict=True)[company.index("sun")]
        assert torch.equal(found.tokens, alone.tokens)
        assert torch.equal(found.pooled, alone.pooled)


@torch.inference_mode()
def test_at_one_batch_size_neither_slot_nor_neighbours_change_a_bit(tiny_model: LoadedModel) -> None:
    network = tiny_model.network
    embeddings = network.encode(PROMPTS[:MAX_BATCH])
    kept = noise.draw(0, (4, 16, 16))[0]
    outputs, images = set(), set()
    for trial in range(20):
        slot = trial % MAX_BATCH
        latents = torch.stack([noise.draw(100 * trial + row, (4, 16, 16))[0] for row in range(MAX_BATCH)])
        latents[slot] = kept
        company = [embeddings[(row + trial) % MAX_BATCH] for row in range(MAX_BATCH)]
        company[slot] = embeddings[0]
        timesteps = torch.tensor([1000.0, 750.0, 500.0, 250.0]).roll(trial // MAX_BATCH)
        timesteps[slot] = 500.0
        outputs.add(network.predict(latents, timesteps, stacked(company))[slot].numpy().tobytes())
        images.add(network.decode(latents)[slot].numpy().tobytes())
    assert len(outputs) == len(images) == 1


def test_fast_pixels_differ_by_at_most_one_level_from_strict_ones(tiny_model: LoadedModel) -> None:
    seeds = range(5)
    prompts = PROMPTS[:5]
    strict = generate(Engine(tiny_model, 8), prompts, seeds, mode="strict").astype(int)
    for max_batch in buckets(8):
        fast = generate(Engine(tiny_model, max_batch), prompts, seeds)
        assert np.abs(fast - strict).max() <= 1
