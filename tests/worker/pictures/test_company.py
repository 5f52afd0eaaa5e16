"""Pictures, masks, negative prompts and guidance scales of one's own: each row's alone, whatever shares its batch."""

import random

import numpy as np
import pytest

from tests.worker.engine.recorded_graphs import RecordedGraphs
from tests.worker.pictures.sources import Sourced, drawn, from_picture, square_mask
from tests.worker.tasks import PROMPTS, image_task, pictures
from worker.engine.engine import Engine
from worker.engine.outcomes import Picture
from worker.model_folder.loading import LoadedModel, served
from worker.testing import tiny_pipelines


@pytest.fixture(scope="module")
def guided() -> LoadedModel:
    return served("guided", "ab", tiny_pipelines.contract(guidance_scale=3.0), tiny_pipelines.build())


def _random_task(dice: random.Random) -> Sourced:
    pixels = np.random.default_rng(dice.randrange(3)).integers(0, 255, (64, 64, 3), np.uint8)
    guidance = {"negative_prompt": dice.choice([None, *PROMPTS]), "guidance_scale": dice.choice([None, 1.5, 6.0])}
    return from_picture(
        pixels,
        dice.choice([0.0, 0.4, 0.7, 1.0]),
        dice.choice([None, square_mask()]),
        dice.choice(PROMPTS),
        dice.randrange(100),
        mode=dice.choice(["fast", "strict"]),
        **guidance,
    )


@pytest.mark.slow
@pytest.mark.parametrize("start", range(3))
def test_strict_bits_do_not_depend_on_the_company(guided: LoadedModel, start: int) -> None:
    dice = random.Random(start)
    task, files = _random_task(dice)
    it = task.model_copy(update={"mode": "strict"}), files
    alone = drawn(Engine(guided, 4), {"it": it})["it"]
    for _ in range(8):
        company = {str(number): _random_task(dice) for number in range(dice.randrange(1, 6))} | {"it": it}
        keys = list(company)
        dice.shuffle(keys)
        outcome = drawn(Engine(guided, 4), {key: company[key] for key in keys})["it"]
        assert np.array_equal(outcome.pixels, alone.pixels)


@pytest.mark.slow
def test_rows_of_one_batch_are_guided_each_in_its_own_way(guided: LoadedModel) -> None:
    asked = [("sun", "heart", 2.0), ("sun", "heart", 5.0), ("sun", None, 5.0), ("sun", "", None)]
    tasks = [
        image_task(prompt, 4, mode="strict", negative_prompt=negative, guidance_scale=scale)
        for prompt, negative, scale in asked
    ]
    engine = Engine(guided, 4, RecordedGraphs())
    engine.warm_up()
    together = pictures(engine, tasks)
    assert {picture.bucket for picture in together} == {4}
    for picture, (prompt, negative, scale) in zip(together, asked, strict=True):
        expected = _published(guided, prompt, negative or "", scale or 3.0)
        assert np.abs(picture.pixels.astype(int) - expected).max() <= 1
    assert len({picture.pixels.tobytes() for picture in together}) == 4


def _published(model: LoadedModel, prompt: str, negative: str, scale: float) -> np.ndarray:
    """The picture of a model that is guided so by default."""
    contract = model.contract.model_copy(update={"guidance_scale": scale, "negative_prompt": negative})
    (picture,) = pictures(Engine(served("own", "ab", contract, model.network.pipeline), 4), [image_task(prompt, 4)])
    assert isinstance(picture, Picture)
    return picture.pixels.astype(int)


def test_a_model_without_guidance_is_not_guided(tiny_model: LoadedModel) -> None:
    plain, asked = image_task("sun", 1), image_task("sun", 1, negative_prompt="heart", guidance_scale=7.0)
    one, other = pictures(Engine(tiny_model, 4), [plain, asked])
    assert np.array_equal(one.pixels, other.pixels)
