"""docs/images/playground.webp: `python docs/scripts/make_screenshot.py` beside `make serve-both`. Needs a Chromium."""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

TARGET = Path(__file__).resolve().parents[1] / "images" / "playground.webp"
RUNS = [("fruit", 3, "emoji-student"), ("a green frog face", 5, "emoji-student"), ("a happy face", 7, "side by side")]


def draw(page: Page, prompt: str, seed: int, model: str) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Seed", exact=True).fill(str(seed))
    page.get_by_label("Model").select_option(model)
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#status")).to_contain_text(" s.", timeout=300_000)


def main(server: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1120})
        page.goto(server)
        expect(page.get_by_label("Model")).to_be_visible(timeout=60_000)
        for prompt, seed, model in RUNS:
            draw(page, prompt, seed, model)
        picture = Image.open(io.BytesIO(page.screenshot()))
        picture.save(TARGET, quality=88, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:] or ["http://localhost:8000"])
