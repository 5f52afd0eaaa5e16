"""Generating on the page, and reading the pictures there."""

import io
import math
import re

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

DONE = re.compile(r"\d pictures? in .* s\.|1 picture in .* s\.")


def generate(page: Page, prompt: str, images: int, seed: int | None = None) -> Locator:
    """Fill in the form, press the button, wait until all is there, and return the pictures."""
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Images").fill(str(images))
    if seed is not None:
        page.get_by_label("Seed", exact=True).fill(str(seed))
    page.get_by_role("button", name="Generate").click()
    return finished(page, images)


def finished(page: Page, images: int) -> Locator:
    """The pictures of the run that was just begun."""
    expect(page.locator("#status")).to_have_text(DONE)
    pictures = page.locator("#pictures img")
    expect(pictures).to_have_count(images)
    return pictures


def addresses(pictures: Locator) -> list[str]:
    """Pictures are addressed by content: the same address is the same bytes."""
    return [str(picture.get_attribute("src")) for picture in pictures.all()]


def seeds(page: Page) -> list[int]:
    return [int(text.removeprefix("seed ")) for text in page.locator("figcaption").all_inner_texts()]


def pixels(server: str, address: str) -> np.ndarray:
    picture = Image.open(io.BytesIO(httpx.get(server + address).content))
    return np.asarray(picture.convert("RGB"), dtype=int)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Decibels, infinite for equal pictures."""
    error = float(np.square(one - other).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf
