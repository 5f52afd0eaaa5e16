"""Draw docs/images/diverse.png, four plain seeds beside a diverse set: `python -m docs.scripts.make_diverse_grid`."""

from pathlib import Path

from PIL import Image, ImageDraw

from bench.diversity.diverse_sets import CANDIDATES, IMAGES, Side, bench_task, make, student
from jobs.models import DiverseSet

OUT = Path(__file__).parents[1] / "images" / "diverse.png"
PROMPTS = ("animal", "fruit", "a vehicle", "a monster", "food", "weather")
SEED = 40
CELL, CAPTION, GAP = 80, 18, 12


def main() -> None:
    engine = student()
    width = GAP + 2 * (IMAGES * CELL + GAP)
    grid = Image.new("RGB", (width, GAP + len(PROMPTS) * (CELL + CAPTION + GAP)), "white")
    draw = ImageDraw.Draw(grid)
    for row, prompt in enumerate(PROMPTS):
        top = GAP + row * (CELL + CAPTION + GAP)
        plain, chosen = Side(), Side()
        make(engine, {str(index): bench_task(prompt, SEED + index) for index in range(IMAGES)}, plain)
        make(engine, {"set": bench_task(prompt, SEED, DiverseSet(images=IMAGES, candidates=CANDIDATES))}, chosen)
        for column, (name, side) in enumerate(((f"seeds {SEED} to {SEED + IMAGES - 1}", plain), ("4 of 16", chosen))):
            left = GAP + column * (IMAGES * CELL + GAP)
            draw.text((left + 4, top), f"{prompt}: {name}", fill="black", font_size=13)
            for index, pixels in enumerate(side.pixels[0]):
                picture = Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.LANCZOS)
                grid.paste(picture, (left + index * CELL, top + CAPTION))
    grid.save(OUT, optimize=True)


if __name__ == "__main__":
    main()
