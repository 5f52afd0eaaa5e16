"""`image`, `mask` and `strength` of /generate: what reaches the worker, and what is refused before it is decoded."""

import asyncio
import io
import random
from collections.abc import Callable

import httpx
import pytest
from PIL import Image
from redis.asyncio import Redis

from jobs.queue.claims import SourceFiles
from jobs.queue.keys import ModelKeys
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL, sample_card
from jobs.testing.waiting import wait_until
from service.inputs import picture_files
from service.schemas.request_warnings import unchanged_picture
from tests.service.calls import generate, is_problem
from tests.service.pictures.files import b64, bomb, mask, picture, saved
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker


def _pixel(file: bytes, place: tuple[int, int]) -> object:
    return Image.open(io.BytesIO(file)).getpixel(place)


def _source(worker: StandInWorker) -> SourceFiles:
    source = worker.claims[-1].source
    assert source is not None
    return source


async def test_a_picture_reaches_the_worker_at_the_size_of_the_image(
    api: httpx.AsyncClient, worker: StandInWorker, redis: Redis
) -> None:
    body = {"image": b64(picture((200, 100), "JPEG", quality=95)), "mask": b64(mask((200, 100))), "strength": 0.6}
    await generate(api, **body, num_images=2, width=96)
    source, task = _source(worker), worker.made[0]
    assert task.source is not None
    assert task.source.strength == 0.6
    assert source.mask is not None
    for file in (source.image, source.mask):
        found = Image.open(io.BytesIO(file))
        assert (found.format, found.size) == ("PNG", (96, 64))
    assert (_pixel(source.mask, (4, 32)), _pixel(source.mask, (92, 32))) == (255, 0)
    red, green, blue = _pixel(source.image, (92, 32))  # type: ignore[misc]
    assert red > 240 > 20 > max(green, blue)
    # The job has ended: nobody needs them any more.
    assert await redis.keys(ModelKeys(MODEL).input("*")) == []


async def test_an_image_that_was_made_here_is_named_by_its_address(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    first = (await generate(api, response="url", seed=3))["images"][0]
    made = (await api.get(first["url"])).content
    for address in (first["url"], f"{first['sha256']}.png", f"/images/{first['sha256']}.png"):
        await generate(api, image=address)
        assert _pixel(_source(worker).image, (0, 0)) == _pixel(made, (0, 0))
    answer = await api.post("/generate", json={"prompt": "a cat", "image": f"{'0' * 64}.png"})
    assert is_problem(answer, 422, "invalid-request")
    assert answer.json()["errors"] == [{"field": "image", "message": "the image is unknown, or has expired"}]


async def test_what_is_transparent_is_painted_and_the_picture_stands_upright(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    hole = Image.new("RGBA", (64, 64), "green")
    hole.paste((0, 0, 0, 0), (0, 0, 64, 32))
    rotated = Image.Exif()
    rotated[0x0112] = 6  # to be turned to the right: the left half comes to the top
    turned = b64(picture(kind="JPEG", exif=rotated))
    await generate(api, image=f"data:image/jpeg;base64,{turned}", mask=b64(saved(hole, "PNG")))
    source = _source(worker)
    assert source.mask is not None
    assert (_pixel(source.mask, (32, 4)), _pixel(source.mask, (32, 60))) == (255, 0)
    assert _pixel(source.image, (32, 4))[2] > 200  # type: ignore[index]
    assert worker.made[-1].source is not None
    assert worker.made[-1].source.strength == 1.0
    opaque = Image.open(io.BytesIO(mask())).convert("RGBA")  # as a canvas saves it
    await generate(api, image=b64(saved(hole, "WEBP")), mask=b64(saved(opaque, "PNG")))
    source = _source(worker)
    assert source.mask is not None
    assert (_pixel(source.mask, (4, 4)), _pixel(source.mask, (60, 4))) == (255, 0)
    assert _pixel(source.image, (4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["of the screen", "of the file", "turned like the photo", "the photo's own"])
async def test_a_mask_lies_where_it_was_painted_on_a_photo_that_its_exif_turns(
    api: httpx.AsyncClient, worker: StandInWorker, kind: str, orientation: int
) -> None:
    """The photo, as it stands upright, is red where it is to be painted anew; its file, 48x32 or 32x48, lies anyhow."""
    upright = Image.new("RGBA", (48, 32), "blue")
    upright.paste("red", (0, 0, 12, 8))
    hidden, black = upright.copy(), Image.new("L", upright.size)
    hidden.paste((255, 0, 0, 0), (0, 0, 12, 8))
    black.paste(255, (0, 0, 12, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = TURNED_BACK.get(orientation)

    def lying(image: Image.Image) -> Image.Image:
        return image if back is None else image.transpose(back)

    masks = {
        "of the screen": saved(black, "PNG"),
        "of the file": saved(lying(black), "PNG"),
        "turned like the photo": saved(lying(black), "PNG", exif=exif),
    }
    photo = saved(lying(hidden if kind == "the photo's own" else upright), "PNG", exif=exif)
    form = {"image": ("photo.png", photo)} | ({"mask": ("mask.png", masks[kind])} if kind in masks else {})
    data = {"prompt": "a cat", "size": "96x64"}
    answer = await api.post("/v1/images/edits", data=data, files=form)
    assert answer.status_code == 200, answer.text
    source = _source(worker)
    assert source.mask is not None
    # A mask that has the size of the upright photo lies as that does.
    expected = lying(black) if kind == "of the file" and orientation in (2, 3, 4) else black
    painted = Image.open(io.BytesIO(source.mask)).resize(upright.size, Image.Resampling.BOX)
    assert painted.point([255 * (value > 128) for value in range(256)]).getbbox() == expected.getbbox()
    assert _pixel(source.image, (4, 4)) == ((255, 255, 255) if kind == "the photo's own" else (255, 0, 0))


TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""From how a picture stands to how a file of each EXIF orientation has it."""


@pytest.mark.parametrize(
    ("wrong", "field", "limit"),
    [
        ({"image": "no base64!"}, "image", None),
        ({"image": b64(b"GIF89a and so on")}, "image", ["png", "jpeg", "webp"]),
        ({"image": b64(saved(Image.new("RGB", (8, 8)), "GIF"))}, "image", ["png", "jpeg", "webp"]),
        ({"image": b64(bomb(30000, 30000))}, "image", 2**24),
        ({"image": b64(bomb(5000, 4000))}, "image", 2**24),
        ({"image": b64(bomb(64, 64))}, "image", None),
        ({"image": b64(picture()[:100])}, "image", None),
        ({"image": b64(picture()), "mask": b64(mask((32, 32)))}, "mask", "64x64"),
        ({"image": b64(picture()), "mask": b64(bomb(64, 64))}, "mask", None),
        ({"image": b64(picture()), "strength": 1.5}, "strength", 1.0),
        ({"image": b64(b"x" * (8 * 2**20 + 1))}, "image", 8 * 2**20),
        ({"strength": 0.5}, "strength", None),
        ({"mask": b64(mask())}, "mask", None),
    ],
)
async def test_each_error_names_its_field_and_limit(
    api: httpx.AsyncClient, worker: StandInWorker, wrong: dict, field: str, limit: object
) -> None:
    answer = await api.post("/generate", json={"prompt": "a cat", **wrong})
    assert is_problem(answer, 422, "invalid-request")
    (error,) = answer.json()["errors"]
    assert (error["field"], error.get("limit")) == (field, limit), error
    assert worker.made == []


def test_too_many_pixels_are_refused_before_one_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    limits = picture_files.PictureLimits(max_bytes=2**20, max_pixels=1000)
    for kind in picture_files.FORMATS:
        with pytest.raises(picture_files.InvalidFieldsError, match="at most 1000 pixels, not 40x30"):
            picture_files.opened(FILES[kind], "image", limits)


FILES = {kind: picture((40, 30), kind) for kind in picture_files.FORMATS}


async def test_a_body_beyond_two_pictures_is_too_large_and_so_is_one_where_none_belongs(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    most = 64 * 1024 + 2 * 4 * -(-8 * 2**20 // 3)
    answer = await api.post("/generate", content=b" " * (most + 1), headers={"Content-Type": "application/json"})
    assert is_problem(answer, 413, "body-too-large")
    assert answer.json()["errors"][0]["limit"] == most
    answer = await api.post("/v1/images/generations", json={"prompt": "a cat", "user": "x" * 70000})
    assert is_problem(answer, 413, "body-too-large")
    assert answer.json()["errors"][0]["limit"] == 64 * 1024


@pytest.mark.parametrize("of_all", [True, False])
async def test_a_model_that_encodes_none_says_so_and_one_with_a_worker_that_knows_none(
    api: httpx.AsyncClient, worker: StandInWorker, of_all: bool
) -> None:
    card = sample_card().model_copy(update={"noise_levels": []})
    if of_all:
        worker.card = card
    else:
        await worker.queue.announce("of an older release", card, ttl_s=600)

    async def refused() -> bool:
        answer = await api.post("/generate", json={"prompt": "a cat", "image": b64(picture())})
        return answer.status_code == 422 and answer.json()["errors"][0]["field"] == "image"

    await wait_until(refused)


async def test_a_strength_that_changes_nothing_is_told(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    answer = await generate(api, image=b64(picture()), strength=0.2)
    assert [warning["field"] for warning in answer["warnings"]] == ["strength"]
    for strength in (0.0, 0.25, 1.0):
        assert "warnings" not in await generate(api, image=b64(picture()), strength=strength)
    assert unchanged_picture(worker.made[:1], sample_card())


async def test_the_strength_is_compared_with_the_noise_levels_of_the_size(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    native = sample_card().noise_levels
    wide = [1.0, 0.5, 0.4, 0.3, 0.0]
    worker.card = sample_card().model_copy(update={"size_noise_levels": [native, wide]})

    async def announced() -> bool:
        return (await api.get("/models")).json()["models"][0]["size_noise_levels"] == [native, wide]

    await wait_until(announced)
    await wait_until(lambda: _warned(api))
    assert "warnings" not in await generate(api, image=b64(picture()), strength=0.2, width=96)


async def _warned(api: httpx.AsyncClient) -> bool:
    return "warnings" in await generate(api, image=b64(picture()), strength=0.2)


async def test_a_guided_model_takes_a_scale_and_a_negative_prompt_of_ones_own(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    guided = {"evaluations": 8, "guidance_scale": 3.5, "negative_prompt": ""}
    worker.card = sample_card().model_copy(update=guided)

    async def taken() -> bool:
        asked = {"prompt": "a cat", "negative_prompt": "a dog", "cfg_scale": 7}
        return (await api.post("/generate", json=asked)).status_code == 200

    await wait_until(taken)
    assert (worker.made[-1].negative_prompt, worker.made[-1].guidance_scale) == ("a dog", 7.0)
    await generate(api)
    assert (worker.made[-1].negative_prompt, worker.made[-1].guidance_scale) == (None, None)
    for wrong in ({"guidance_scale": 31}, {"guidance_scale": 2, "cfg_scale": 3}):
        answer = await api.post("/generate", json={"prompt": "a cat", **wrong})
        assert is_problem(answer, 422, "invalid-request")
        assert [error["field"] for error in answer.json()["errors"]] == [list(wrong)[-1]]


async def test_bodies_that_together_exceed_the_room_of_a_caller_go_one_after_the_other(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    noise = Image.frombytes("RGB", (640, 400), random.Random(0).randbytes(640 * 400 * 3))
    body = {"prompt": "a cat", "image": b64(saved(noise, "PNG"))}
    assert len(body["image"]) > 2**20 * 0.9
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port(), max_answer_bytes=2**20)) as api:
        answers = await asyncio.gather(*(api.post("/generate", json=body) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
