"""Draw the README's picture grid from a running server: `.venv/bin/python docs/scripts/make_grid.py`."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import httpx
from PIL import Image, ImageDraw

SERVER = "http://127.0.0.1:8000"
OUT = Path(__file__).parents[1] / "images" / "grid.webp"
PROMPTS = (
    "a smiling cat face", "a red apple", "a fox", "a penguin",
    "a sunflower", "a rocket", "a face with sunglasses", "a heart with arrow",
    "a castle", "a snowman", "a frog face", "a strawberry",
    "a pumpkin", "a tulip", "a panda face", "a bear face",
    "a lemon", "a carrot", "a mushroom", "a balloon",
    "a rainbow", "an animal", "a fruit", "a happy face",
)  # fmt: skip
SEEDS = tuple(range(100, 108))
ACROSS = 2
CELL, CAPTION, GAP = 64, 16, 10


def main() -> None:
    width = ACROSS * (len(SEEDS) * CELL + GAP) + GAP
    height = len(PROMPTS) // ACROSS * (CELL + CAPTION + GAP) + GAP
    grid = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(grid)
    for number, prompt in enumerate(PROMPTS):
        left = GAP + number % ACROSS * (len(SEEDS) * CELL + GAP)
        top = GAP + number // ACROSS * (CELL + CAPTION + GAP)
        draw.text((left + 4, top), prompt, fill="black", font_size=14)
        for column, picture in enumerate(generate(prompt, SEEDS, "emoji-student")):
            grid.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (left + column * CELL, top + CAPTION))
    OUT.parent.mkdir(exist_ok=True)
    grid.save(OUT, quality=90)


def generate(prompt: str, seeds: Sequence[int], model: str) -> list[Image.Image]:
    request = {"prompt": prompt, "seeds": seeds, "model": model, "mode": "strict"}
    answer = httpx.post(f"{SERVER}/generate", json=request, timeout=300).raise_for_status().json()
    return [Image.open(io.BytesIO(base64.b64decode(image["b64"]))) for image in answer["images"]]


if __name__ == "__main__":
    main()
