"""Measure by how much slot, neighbours, batch size, threads and the compiler change one image, part by part.

Prints the table of docs/determinism.md. The image is row 0 of a batch unless stated; its text embedding is fixed,
except in the column of the text encoders.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench import markdown, results_file
from jobs.settings import BUNDLED_MODEL
from worker.engine.denoising_step import StepInputs
from worker.engine.engine import Engine
from worker.engine.executor import Executor
from worker.engine.scheduler import buckets
from worker.engine_process.compile_thread import compile_shape
from worker.engine_process.device_thread import DeviceThread
from worker.families.prompt_embeddings import stacked
from worker.model_folder.loading import load
from worker.sampling import noise
from worker.startup import quiet_libraries

PROMPTS = ["a smiling cat face", "fruit", "a red heart", "animal", "a sad face", "sun", "flower", "a green car"]
PARTS = ("text encoders", "denoiser", "decoder")


@dataclass(frozen=True)
class Batch:
    """The image at `slot` of `rows` rows, beside neighbours drawn from `company`."""

    rows: int
    slot: int = 0
    company: int = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(BUNDLED_MODEL))
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="also compile, at two batch sizes (minutes)")
    options = parser.parse_args()
    device = DeviceThread()
    device.start()
    table = {dtype: device.call(_run, options, dtype).result() for dtype in options.dtypes}
    results_file.write("bit_identity", {"max_batch": options.max_batch, "largest_difference": table})
    for dtype, rows in table.items():
        shown = [[change, *(_shown(found.get(part)) for part in PARTS)] for change, found in rows.items()]
        print("\n" + markdown.table([dtype, *PARTS], shown))


def _shown(difference: float | None) -> str:
    return "" if difference is None else "equal" if difference == 0 else f"{difference:.0e}"


@torch.inference_mode()
def _run(options: argparse.Namespace, dtype: str) -> dict[str, dict[str, float]]:
    quiet_libraries()
    engine = Engine(load(options.model, dtype=dtype), options.max_batch)
    largest = options.max_batch
    base = _parts(engine, engine.runner.eager, Batch(largest))
    table = {
        "another slot": _differences(
            base, *(_parts(engine, engine.runner.eager, Batch(largest, slot)) for slot in range(1, largest))
        ),
        "other neighbours": _differences(
            base, *(_parts(engine, engine.runner.eager, Batch(largest, 0, company)) for company in range(2, 8))
        ),
    }
    for rows in buckets(largest)[:-1]:
        name = f"a batch of {rows} instead of {largest}"
        table[name] = _differences(base, _parts(engine, engine.runner.eager, Batch(rows)))
    table |= _other_threads(lambda: _differences(base, _parts(engine, engine.runner.eager, Batch(largest))))
    if options.compile:
        table |= _compiled(engine, base)
    return table


def _compiled(engine: Engine, base: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
    path, examples = engine.runner.new_compiled(), engine.rehearsal.examples()
    for example in examples[:2]:
        compile_shape(path, engine.runner.eager, example)
    largest, half = len(examples[0].latents), len(examples[1].latents)
    whole = _parts(engine, path, Batch(largest))
    return {
        "compiled": _differences(base, whole),
        "compiled: another slot": _differences(
            whole, *(_parts(engine, path, Batch(largest, slot)) for slot in range(1, largest))
        ),
        f"compiled: a batch of {half} instead of {largest}": _differences(whole, _parts(engine, path, Batch(half))),
    }


def _other_threads(difference: Callable[[], dict[str, float]]) -> dict[str, dict[str, float]]:
    threads = torch.get_num_threads()
    other = 1 if threads > 1 else 2
    torch.set_num_threads(other)
    try:
        return {f"{other} threads instead of {threads}": difference()}
    finally:
        torch.set_num_threads(threads)


def _parts(engine: Engine, path: Executor, batch: Batch) -> dict[str, torch.Tensor]:
    """The output of each part for the image in this batch."""
    network, slot = engine.model.network, batch.slot
    prompts = [PROMPTS[(row + batch.company) % len(PROMPTS)] for row in range(batch.rows)]
    prompts[slot] = PROMPTS[0]
    shape = network.latent_shape(*engine.model.contract.sizes[0])
    seeds = [1000 * batch.company + row for row in range(batch.rows)]
    seeds[slot] = 0
    latents = torch.stack([noise.draw(seed, shape)[0] for seed in seeds]).to(network.device)
    index = torch.arange(batch.rows, device=network.device) % engine.model.table.steps
    index[slot] = 0
    fixed = engine.runner.prompts.get(PROMPTS[: engine.max_batch], strict=True)
    embeddings = [fixed[(row + batch.company) % len(fixed)] for row in range(batch.rows)]
    embeddings[slot] = fixed[0]
    encoded = network.encode(prompts)[slot]
    return {
        "text encoders": torch.cat([part.flatten() for part in encoded.parts.values()]).float(),
        "denoiser": path.step(StepInputs(latents, index, stacked(embeddings))).pred_x0[slot],
        "decoder": path.decode(latents)[slot],
    }


def _differences(base: dict[str, torch.Tensor], *others: dict[str, torch.Tensor]) -> dict[str, float]:
    """The largest difference of each part, as a share of its largest value."""
    return {
        part: max(float((other[part] - base[part]).abs().max() / base[part].abs().max()) for other in others)
        for part in PARTS
    }


if __name__ == "__main__":
    main()
