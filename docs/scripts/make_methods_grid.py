"""Draw docs/images/methods.webp, teacher, DP-DMD and DMD on the same prompts and seeds, from a running server:

fourstep up models/emoji-teacher models/emoji-student build/replicate/emoji/students/dmd-0
.venv/bin/python -m docs.scripts.make_methods_grid
"""

from pathlib import Path

from PIL import Image, ImageDraw

from docs.scripts.make_grid import CAPTION, CELL, GAP, generate

OUT = Path(__file__).parents[1] / "images" / "methods.webp"
PROMPTS = (
    "an animal", "a fruit", "a happy face", "a flower", "a heart", "a face",
    "a cat face", "a red apple", "a rocket", "a pumpkin",
)  # fmt: skip
SEEDS = tuple(range(100, 106))
MODELS = {
    "emoji-teacher": "teacher, 60 evaluations",
    "emoji-student": "DP-DMD student, 4 evaluations",
    "dmd-0": "DMD student, 4 evaluations",
}


def main() -> None:
    across, down = len(SEEDS) * CELL + GAP, CELL + CAPTION + GAP
    grid = Image.new("RGB", (len(MODELS) * across + GAP, len(PROMPTS) * down + 2 * GAP + CAPTION), "white")
    draw = ImageDraw.Draw(grid)
    for column, (model, title) in enumerate(MODELS.items()):
        left = GAP + column * across
        draw.text((left + 4, GAP), title, fill="black", font_size=16)
        for row, prompt in enumerate(PROMPTS):
            top = 2 * GAP + CAPTION + row * down
            draw.text((left + 4, top), prompt, fill="#666666", font_size=13)
            for place, picture in enumerate(generate(prompt, SEEDS, model)):
                grid.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (left + place * CELL, top + CAPTION))
    grid.save(OUT, quality=90)


if __name__ == "__main__":
    main()
