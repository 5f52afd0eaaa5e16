"""A picture to begin from: chosen or dropped, with a mask drawn over it, at a strength."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page, expect

from tests.playground.calls.shown_code import LANGUAGES, pictures_in, run, shown
from tests.playground.pictures import addresses, generate, pixels, psnr


def _picture(size: tuple[int, int] = (64, 64)) -> bytes:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((size[0] // 8, size[1] // 8, size[0] * 7 // 8, size[1] * 7 // 8), "gold")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _as_pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), dtype=int)


def _choose(page: Page, file: bytes) -> Locator:
    page.get_by_label("Choose a picture").set_input_files(
        {"name": "picture.png", "mimeType": "image/png", "buffer": file}
    )
    canvas = page.get_by_label("The picture to begin from")
    expect(canvas).to_be_visible()
    return canvas


def _strength(page: Page, value: float) -> None:
    page.get_by_label("Strength").fill(str(value))
    expect(page.locator("#strength-value")).to_have_text(f"{value:.2f}")


def _draw_a_mask(page: Page) -> None:
    """Over the middle of the picture."""
    box = page.get_by_label("The mask").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=4)
    page.mouse.up()
    expect(page.get_by_role("button", name="Clear mask")).to_be_visible()


def test_a_chosen_picture_comes_back_the_more_like_itself_the_less_the_strength(playground: Page, server: str) -> None:
    _choose(playground, _picture())
    alike = []
    for strength in (0.0, 0.5, 1.0):
        _strength(playground, strength)
        (address,) = addresses(generate(playground, "a red heart", 1, seed=4))
        alike.append(psnr(pixels(server, address), _as_pixels(_picture())))
    assert alike == sorted(alike, reverse=True)
    playground.get_by_role("button", name="Remove picture").click()
    (without,) = addresses(generate(playground, "a red heart", 1, seed=4))
    assert psnr(pixels(server, without), pixels(server, address)) > 40
    expect(playground.get_by_label("The picture to begin from")).to_be_hidden()


def test_a_mask_is_drawn_and_the_rest_of_the_picture_stays(playground: Page, server: str) -> None:
    _choose(playground, _picture())
    _draw_a_mask(playground)
    expect(playground.locator("#strength-value")).to_have_text("1.00")
    (address,) = addresses(generate(playground, "a rainbow", 1, seed=4))
    drawn, original = pixels(server, address), _as_pixels(_picture())
    assert psnr(drawn[:16], original[:16]) > 30
    assert psnr(drawn[30:34, 24:40], original[30:34, 24:40]) < 20
    playground.get_by_role("button", name="Clear mask").click()
    expect(playground.locator("#code-text")).not_to_contain_text("mask")


def test_a_picture_is_dropped_and_what_is_none_is_told(playground: Page) -> None:
    drop = """([bytes, type]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "dropped", { type }));
        const field = document.getElementById("picture-field");
        field.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    playground.evaluate(drop, [list(b"a text"), "text/plain"])
    expect(playground.locator("#picture-status")).to_have_text(re.compile("no picture"))
    playground.evaluate(drop, [list(_picture((200, 100))), "image/png"])
    canvas = playground.get_by_label("The picture to begin from")
    expect(canvas).to_be_visible()
    assert canvas.evaluate("canvas => [canvas.width, canvas.height]") == [200, 100]
    expect(playground.locator("#picture-status")).to_be_empty()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_code_reads_the_picture_and_the_mask_from_files(
    playground: Page, server: str, tmp_path: Path, language: str
) -> None:
    _choose(playground, _picture())
    _draw_a_mask(playground)
    (address,) = addresses(generate(playground, "it's a rainbow", 1, seed=4))
    for name in ("picture.png", "mask.png"):
        with playground.expect_download() as download:
            playground.get_by_role("link", name=name, exact=True).click()
        download.value.save_as(tmp_path / name)
    run(shown(playground, language), language, tmp_path)
    for name in ("picture.png", "mask.png"):
        (tmp_path / name).unlink()
    (made,) = pictures_in(tmp_path, "png").values()
    assert psnr(made, pixels(server, address)) > 40


def test_a_run_is_drawn_again_from_its_picture_and_a_picture_begins_another(playground: Page, server: str) -> None:
    _choose(playground, _picture())
    _strength(playground, 0.5)
    first = addresses(generate(playground, "a red heart", 1, seed=4))
    playground.get_by_role("button", name="Remove picture").click()
    playground.get_by_role("button", name=re.compile("Draw again: a red heart, .* from a picture")).first.click()
    expect(playground.get_by_label("The picture to begin from")).to_be_visible()
    expect(playground.locator("#strength-value")).to_have_text("0.50")
    expect(playground.locator("#status")).to_contain_text("1 picture in")
    again = addresses(playground.locator("#pictures img"))
    assert psnr(pixels(server, again[0]), pixels(server, first[0])) > 40
    playground.get_by_role("button", name="a red heart, seed 4").click()
    playground.get_by_role("button", name="Begin from it").click()
    _strength(playground, 0)
    (same,) = addresses(generate(playground, "a red heart", 1, seed=4))
    assert psnr(pixels(server, same), pixels(server, again[0])) > 25
