"""Pictures as input, on the bundled student: what a strength means, and what a mask keeps."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from scipy.stats import spearmanr

from jobs.queue.claims import SourceFiles
from jobs.queue.pictures.sources import Source
from jobs.settings import BUNDLED_MODEL, WorkerSettings
from service.inputs.picture_files import PictureLimits, fitted_mask, fitted_picture, opened
from tests.worker.pictures.sources import drawn, from_picture, square_mask
from tests.worker.tasks import image_task, pictures, set_task
from worker.engine.engine import Engine
from worker.engine.outcomes import PreviewImage
from worker.engine.row import Row
from worker.engine.row_starts.starts import RowStarts
from worker.model_folder.loading import LoadedModel, load, served
from worker.pixels import from_uint8, to_uint8
from worker.sampling.noise import draw
from worker.startup import model_card
from worker.testing import tiny_pipelines

STRENGTHS = [0.0, 0.4, 0.75, 0.9, 1.0]


@pytest.fixture(scope="module")
def student() -> LoadedModel:
    return load(str(BUNDLED_MODEL), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def originals(student: LoadedModel) -> list[np.ndarray]:
    examples = student.contract.examples[:4]
    tasks = [image_task(prompt, 70 + number) for number, prompt in enumerate(examples)]
    return [picture.pixels for picture in pictures(Engine(student, 4), tasks)]


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(np.square(one.astype(float) - other.astype(float)).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


@torch.inference_mode()
def _through_the_autoencoder(model: LoadedModel, pixels: np.ndarray) -> np.ndarray:
    latents = model.network.encode_picture(from_uint8(torch.from_numpy(pixels)[None]))
    return to_uint8(model.network.decode(latents))[0].numpy()


def test_strength_0_gives_the_picture_back_as_the_autoencoder_does(
    student: LoadedModel, originals: list[np.ndarray]
) -> None:
    for original in originals:
        (outcome,) = drawn(Engine(student, 4), {"it": from_picture(original, 0.0)}).values()
        round_trip = _through_the_autoencoder(student, original)
        assert _psnr(outcome.pixels, round_trip) > 50
        assert _psnr(outcome.pixels, original) > _psnr(round_trip, original) - 0.1
        assert _psnr(round_trip, original) > 25


def test_strength_1_is_text_to_image_bit_by_bit(student: LoadedModel, originals: list[np.ndarray]) -> None:
    task, files = from_picture(originals[0], 1.0, prompt="a fox face", seed=5, mode="strict")
    (expected,) = pictures(Engine(student, 4), [image_task("a fox face", 5, mode="strict")])
    assert np.array_equal(drawn(Engine(student, 4), {"it": (task, files)})["it"].pixels, expected.pixels)


@pytest.mark.slow
def test_the_distance_grows_with_the_strength(student: LoadedModel, originals: list[np.ndarray]) -> None:
    for number, original in enumerate(originals):
        tasks = {str(strength): from_picture(original, strength, prompt="a rocket", seed=3) for strength in STRENGTHS}
        outcomes = drawn(Engine(student, 8), tasks)
        distances = [-_psnr(outcomes[str(strength)].pixels, original) for strength in STRENGTHS]
        assert spearmanr(STRENGTHS, distances).statistic >= 0.8, (number, distances)


def test_a_strength_between_two_noise_levels_is_the_nearer_one(student: LoadedModel) -> None:
    assert student.table.noise_levels == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])
    entries = {0.0: 4, 0.24: 4, 0.26: 3, 0.62: 3, 0.63: 2, 0.83: 1, 0.94: 1, 0.96: 0, 1.0: 0}
    assert {strength: student.table.entry(strength) for strength in entries} == entries


def test_a_size_with_a_grid_of_its_own_has_noise_levels_of_its_own(originals: list[np.ndarray]) -> None:
    sizes, grids = [(64, 64), (32, 64)], [[1.0, 0.75, 0.5, 0.25, 0.0], [1.0, 0.9, 0.85, 0.8, 0.0]]
    contract = tiny_pipelines.contract(sizes=sizes, size_sigmas=grids)
    engine = Engine(served("tiny", "ab", contract, tiny_pipelines.build()), 2)
    levels = model_card(engine, WorkerSettings()).size_noise_levels or []
    assert [pytest.approx(grid) for grid in grids] == levels
    task, files = from_picture(originals[0][:32], 0.6, seed=4, height=32)
    engine.add({"it": task}, {"it": files})
    with torch.inference_mode():
        clean = engine.model.network.encode_picture(from_uint8(torch.from_numpy(originals[0][None, :32])))[0]
        RowStarts(engine.model, 2).begin([engine._rows["it"]], False, [])
    row = engine._rows["it"]
    assert row.step == 3
    noise = draw(4, engine.model.network.latent_shape(32, 64), 1)[0]
    assert row.latents is not None
    assert torch.allclose(row.latents, 0.2 * clean + 0.8 * noise, atol=1e-5)


@pytest.mark.parametrize("strength", [0.75, 1.0])
def test_what_the_mask_leaves_stays_and_the_rest_is_painted(
    student: LoadedModel, originals: list[np.ndarray], strength: float
) -> None:
    mask = square_mask()
    (outcome,) = drawn(Engine(student, 4), {"it": from_picture(originals[0], strength, mask, "a rainbow")}).values()
    assert _psnr(outcome.pixels[mask == 0], originals[0][mask == 0]) > 30
    assert _psnr(outcome.pixels[mask == 255], originals[0][mask == 255]) < 20


def test_the_known_part_is_at_the_noise_level_of_every_step(student: LoadedModel, originals: list[np.ndarray]) -> None:
    engine = Engine(student, 4)
    task, files = from_picture(originals[0], 1.0, square_mask(), "a rainbow", seed=9)
    engine.add({"it": task}, {"it": files})
    row: Row = engine._rows["it"]
    with torch.inference_mode():
        clean = student.network.encode_picture(from_uint8(torch.from_numpy(originals[0])[None]))[0]
    for step, sigma in enumerate([0.9, 0.75, 0.5, 0.0], start=1):
        engine.step()
        assert row.step == step
        assert row.start is not None
        assert row.start.known is not None
        assert row.latents is not None
        expected = (1 - sigma) * clean + sigma * row.start.known.noise
        corner = row.latents[:, :4, :4]
        assert torch.allclose(corner, expected[:, :4, :4], atol=1e-5)
        assert not torch.allclose(row.latents[:, 8, 8], expected[:, 8, 8], atol=0.05)


def test_a_diverse_set_is_chosen_from_candidates_that_begin_from_the_picture(
    student: LoadedModel, originals: list[np.ndarray]
) -> None:
    for strength, apart in ((0.75, True), (0.0, False)):
        task, files = from_picture(originals[0], strength)
        task = set_task(2, 5).model_copy(update={"source": task.source, "seed": 20})
        (found,) = drawn(Engine(student, 4), {"set": (task, files)}).values()
        assert len(found.pictures) == 2
        assert np.array_equal(found.pictures[0].pixels, found.pictures[1].pixels) is not apart
        alone = image_task(task.prompt, found.pictures[1].seed, source=task.source)
        (same,) = drawn(Engine(student, 4), {"alone": (alone, files)}).values()
        assert _psnr(same.pixels, found.pictures[1].pixels) > 40


def test_previews_begin_behind_the_step_at_which_the_picture_enters(
    student: LoadedModel, originals: list[np.ndarray]
) -> None:
    engine, shown = Engine(student, 4), list[PreviewImage]()
    engine.show, engine.watched = shown.extend, {"job"}
    drawn(engine, {"it": from_picture(originals[0], 0.75), "done": from_picture(originals[0], 0.0)})
    assert [sketch.step for sketch in shown] == [3]


def test_previews_of_a_photo_that_its_exif_turns_are_upright_with_the_part_that_stays(
    student: LoadedModel, originals: list[np.ndarray]
) -> None:
    lying = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(originals[0]).transpose(Image.Transpose.ROTATE_90).save(lying, "PNG", exif=exif)
    mask = square_mask()
    outline = io.BytesIO()
    Image.fromarray(mask).save(outline, "PNG")
    limits = PictureLimits(2**20, 2**20)
    photo, painted = (opened(file.getvalue(), "image", limits) for file in (lying, outline))
    files = SourceFiles(fitted_picture(photo, "image", (64, 64)), fitted_mask(painted, "mask", (64, 64)))
    task = image_task("a rainbow", 3, source=Source(files, 1.0).picture)
    engine, shown = Engine(student, 4), list[PreviewImage]()
    engine.show, engine.watched = shown.extend, {"job"}
    drawn(engine, {"it": (task, files)})
    assert [sketch.step for sketch in shown] == [1, 2, 3]
    for sketch in shown:
        assert _psnr(sketch.pixels[mask == 0], originals[0][mask == 0]) > 20


def test_a_file_that_is_no_picture_fails_alone(student: LoadedModel, originals: list[np.ndarray]) -> None:
    engine = Engine(student, 4)
    sound, broken = from_picture(originals[0], 0.5), from_picture(originals[1], 0.5)
    files = {"sound": sound[1], "broken": type(broken[1])(b"\x89PNG no more")}
    engine.add({"sound": sound[0], "broken": broken[0], "lost": broken[0]}, files)
    outcomes = {}
    while engine.busy:
        outcomes |= {outcome.key: type(outcome).__name__ for outcome in engine.step()}
    assert outcomes == {"sound": "Picture", "broken": "Failure", "lost": "Failure"}
