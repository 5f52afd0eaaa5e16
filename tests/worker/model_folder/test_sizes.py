"""Other sizes than the model's own: each gets the noise levels of the scheduler, or those of its contract."""

import numpy as np
import pytest

from jobs.sampling_contract import SamplingContract
from worker.engine.engine import Engine
from worker.errors import FolderRefusedError
from worker.generate import generate, generate_batch
from worker.model_folder.contract import own_contract, resized
from worker.model_folder.loading import served
from worker.testing import tiny_pipelines, tiny_qwen3_pipelines

SMALL, WIDE, TALL = (64, 64), (64, 96), (128, 80)
KLEIN = tiny_qwen3_pipelines.klein()


def _own(*sizes: tuple[int, int]) -> SamplingContract:
    return own_contract(KLEIN, 4, sizes=sizes)


@pytest.mark.parametrize("given", [(SMALL,), (SMALL, WIDE)])
def test_levels_that_are_the_schedulers_are_found_for_other_sizes(given: tuple[tuple[int, int], ...]) -> None:
    found = resized(_own(*given), [TALL, SMALL], KLEIN)
    assert (found.sizes, found.size_sigmas) == ([TALL, SMALL], _own(TALL, SMALL).size_sigmas)
    assert found.sigmas == found.sigmas_of(TALL) != found.sigmas_of(SMALL)


def test_one_of_several_sizes_keeps_its_own_levels() -> None:
    several = _own(SMALL, TALL)
    found = resized(several, [TALL], KLEIN)
    assert (found.sigmas, found.size_sigmas) == (several.sigmas_of(TALL), None)


def test_a_students_levels_are_those_of_all_sizes() -> None:
    student = _own(SMALL).model_copy(update={"sigmas": [1.0, 0.9, 0.5, 0.2, 0.0]})
    found = resized(student, [SMALL, TALL], KLEIN)
    assert (found.sigmas, found.size_sigmas) == (student.sigmas, None)


def test_a_size_whose_levels_nobody_knows_is_refused() -> None:
    levels = [[1.0, 0.9, 0.5, 0.2, 0.0], [1.0, 0.8, 0.5, 0.2, 0.0]]
    student = _own(SMALL, WIDE).model_copy(update={"sigmas": levels[0], "size_sigmas": levels})
    with pytest.raises(FolderRefusedError, match=r"^sizes: \(128, 80\), but size_sigmas"):
        resized(student, [TALL], KLEIN)


def test_a_batch_without_the_engine_takes_the_levels_of_its_size() -> None:
    pipeline = tiny_pipelines.build()
    levels = [[1.0, 0.75, 0.5, 0.25, 0.0], [1.0, 0.9, 0.6, 0.3, 0.0]]
    contract = tiny_pipelines.contract(sizes=[SMALL, (32, 64)], size_sigmas=levels)
    model = served("tiny", "ab", contract, pipeline)
    for size in contract.sizes:
        alone = generate_batch(model, ["sun"], [1], size)
        engine = generate(Engine(model, 2), ["sun"], [1], size)
        one_grid = tiny_pipelines.contract(sizes=[size], sigmas=contract.sigmas_of(size))
        expected = generate(Engine(served("tiny", "ab", one_grid, pipeline), 2), ["sun"], [1], size)
        assert np.array_equal(engine, expected)
        assert np.abs(alone.astype(int) - engine).max() <= 1
