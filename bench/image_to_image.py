"""Measure what a strength and a mask do to pictures, on the bundled student.

    python -m bench.image_to_image

Each of 50 pictures by the student is drawn again with another prompt and seed. Writes
`bench/results/image_to_image.json` and the table of docs/pictures.md.
"""

import io
import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr

from bench import markdown
from jobs.models import ImageTask
from jobs.queue.claims import SourceFiles
from jobs.queue.pictures.sources import Source
from jobs.settings import BUNDLED_MODEL
from worker.engine.engine import Engine
from worker.engine.outcomes import Picture
from worker.generate import generate
from worker.model_folder.loading import LoadedModel, load
from worker.pixels import from_uint8, to_uint8

RESULT = Path(__file__).parent / "results" / "image_to_image.json"
PAGE = Path(__file__).parents[1] / "docs" / "pictures.md"
PICTURES = 50
STRENGTHS = [0.0, 0.3, 0.5, 0.7, 0.75, 0.85, 0.9, 1.0]


def main() -> None:
    model = load(str(BUNDLED_MODEL), device="cpu", dtype="float32")
    engine, prompts = Engine(model, 8), model.contract.examples
    originals = generate(engine, [prompts[i % len(prompts)] for i in range(PICTURES)], range(PICTURES), mode="strict")
    others = [prompts[(i + 3) % len(prompts)] for i in range(PICTURES)]
    seeds = range(1000, 1000 + PICTURES)
    plain = generate(engine, others, seeds, mode="strict")
    drawn = {
        strength: [
            _drawn(engine, original, None, strength, prompt, seed)
            for original, prompt, seed in zip(originals, others, seeds, strict=True)
        ]
        for strength in STRENGTHS
    }
    masked = [
        _drawn(engine, original, _middle(model), 1.0, prompt, seed)
        for original, prompt, seed in zip(originals, others, seeds, strict=True)
    ]
    round_trips = [_round_trip(model, original) for original in originals]
    stays = _middle(model) == 0
    correlations = [
        float(spearmanr(STRENGTHS, [-_psnr(drawn[strength][i], originals[i]) for strength in STRENGTHS]).statistic)
        for i in range(PICTURES)
    ]
    result = {
        "pictures": PICTURES,
        "autoencoder_db": _about([_psnr(*pair) for pair in zip(round_trips, originals, strict=True)]),
        "strength_0_to_autoencoder_db": _about([_psnr(*pair) for pair in zip(drawn[0.0], round_trips, strict=True)]),
        "strength_1_equals_text_to_image": sum(map(np.array_equal, drawn[1.0], plain)),
        "rank_correlation": _about(correlations),
        "db_by_strength": {str(strength): fmean(map(_psnr, drawn[strength], originals)) for strength in STRENGTHS},
        "unmasked_db": _about([_psnr(a[stays], b[stays]) for a, b in zip(masked, originals, strict=True)]),
        "masked_db": _about([_psnr(a[~stays], b[~stays]) for a, b in zip(masked, originals, strict=True)]),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    PAGE.write_text(rendered(PAGE.read_text(), result))
    print(RESULT.read_text())


def rendered(page: str, result: dict[str, Any]) -> str:
    """`page` with the table of `result`."""
    by_strength = ", ".join(f"{strength}: {db:.1f}" for strength, db in result["db_by_strength"].items())
    autoencoder, correlation = result["autoencoder_db"], result["rank_correlation"]
    equal, pictures = result["strength_1_equals_text_to_image"], result["pictures"]
    stays, painted = result["unmasked_db"]["least"], result["masked_db"]["mean"]
    rows = [
        ("pictures", pictures),
        (
            "the picture after a round trip through the autoencoder",
            "{mean:.1f} dB ({least:.1f} to {most:.1f})".format(**autoencoder),
        ),
        (
            "strength 0, compared with that round trip",
            "{least:.1f} dB at least (aim: 35)".format(**result["strength_0_to_autoencoder_db"]),
        ),
        ("strength 1: pictures with the bits of text to image", f"{equal} of {pictures}"),
        ("compared with the picture, by strength", f"{by_strength} dB"),
        (
            "rank correlation of strength and distance",
            "{mean:.2f}, {least:.2f} at least (aim: .8)".format(**correlation),
        ),
        (
            "with a mask at strength 1: the part that stays; the painted part",
            f"{stays:.1f} dB at least (99 stands for equal; aim: 30); {painted:.1f} dB",
        ),
    ]
    return markdown.filled(page, {"measured": markdown.table(("", ""), rows)})


def _drawn(
    engine: Engine, original: np.ndarray, mask: np.ndarray | None, strength: float, prompt: str, seed: int
) -> np.ndarray:
    source = Source(SourceFiles(_png(original), None if mask is None else _png(mask)), strength)
    height, width, _ = original.shape
    about = {"job_id": "bench", "index": 0, "created": 0.0, "mode": "strict", "height": height, "width": width}
    task = ImageTask.model_validate({**about, "prompt": prompt, "seed": seed, "source": source.picture})
    engine.add({"it": task}, {"it": source.files})
    while True:
        for outcome in engine.step():
            assert isinstance(outcome, Picture), outcome
            return outcome.pixels


@torch.inference_mode()
def _round_trip(model: LoadedModel, pixels: np.ndarray) -> np.ndarray:
    latents = model.network.encode_picture(from_uint8(torch.from_numpy(pixels)[None]))
    return to_uint8(model.network.decode(latents))[0].numpy()


def _middle(model: LoadedModel) -> np.ndarray:
    height, width = model.contract.sizes[0]
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : -height // 4, width // 4 : -width // 4] = 255
    return mask


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Decibels; 99 for equal pictures, which have infinitely many."""
    error = float(np.square(one.astype(float) - other.astype(float)).mean())
    return 10 * math.log10(255**2 / error) if error else 99.0


def _about(values: list[float]) -> dict[str, Any]:
    return {"mean": fmean(values), "least": min(values), "most": max(values)}


if __name__ == "__main__":
    main()
