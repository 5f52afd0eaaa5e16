"""The bundled student's pictures with weights of eight bits: `python -m bench.engine.quantization`.

PSNR in decibels of each format against float32, over 64 pictures of as many prompts and seeds, and the bytes of the
denoiser's weights. Differences of few-step pictures are large where a drawing turns into another one, so the worst
picture is given too.
"""

from pathlib import Path
from typing import Any

import numpy as np

from bench import results_file
from bench.markdown import filled, table
from jobs.settings import BUNDLED_MODEL
from worker.engine.engine import Engine
from worker.generate import generate
from worker.memory.counting import stored_bytes
from worker.model_folder.loading import LoadedModel, load

NAME = "quantization"
FORMATS: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantize": "int8"},
    "fp8": {"quantize": "fp8"},
    "bfloat16, int8": {"dtype": "bfloat16", "quantize": "int8"},
    "bfloat16, fp8": {"dtype": "bfloat16", "quantize": "fp8"},
    "int8 text encoders": {"text_encoders": "int8"},
}
PICTURES, BATCH = 64, 8
PAGE = Path("docs/performance-results.md")


def psnr(pictures: np.ndarray, reference: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of uint8 pictures in decibels; 100 for the same pixels."""
    error = np.mean((pictures.astype(np.float64) - reference) ** 2)
    return 100.0 if error == 0 else float(10 * np.log10(255**2 / error))


def main() -> None:
    reference = load(str(BUNDLED_MODEL), "cpu", "float32")
    examples = reference.contract.examples
    prompts = [examples[number % len(examples)] for number in range(PICTURES)]
    expected, rows = _drawn(reference, prompts), []
    for name, how in FORMATS.items():
        model = load(str(BUNDLED_MODEL), "cpu", **{"dtype": "float32"} | how)
        found = _drawn(model, prompts)
        each = [psnr(picture, other) for picture, other in zip(found, expected, strict=True)]
        rows.append(
            {
                "format": name,
                "denoiser_bytes": stored_bytes(model.network.denoiser),
                "psnr_db": round(psnr(found, expected), 2),
                "worst_db": round(min(each), 2),
            }
        )
    whole = stored_bytes(reference.network.denoiser)
    results_file.write(NAME, {"pictures": PICTURES, "float32_denoiser_bytes": whole, "formats": rows})
    PAGE.write_text(rendered(PAGE.read_text()))


def rendered(page: str) -> str:
    """`page` with its table made anew from the figures."""
    figures = results_file.read(NAME)
    lines = [["float32", f"{figures['float32_denoiser_bytes'] / 1e6:.1f} MB", "", ""]]
    for row in figures["formats"]:
        size = f"{row['denoiser_bytes'] / 1e6:.1f} MB"
        lines.append([row["format"], size, f"{row['psnr_db']:.1f} dB", f"{row['worst_db']:.1f} dB"])
    return filled(page, {NAME: table(["weights", "denoiser", "PSNR", "worst picture"], lines)})


def _drawn(model: LoadedModel, prompts: list[str]) -> np.ndarray:
    return generate(Engine(model, BATCH), prompts, range(len(prompts)))


if __name__ == "__main__":
    main()
