"""Each peer app starts and draws our pictures, with our sampler and with diffusers' pipeline."""

import asyncio
import io
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from PIL import Image

from bench.comparison.client import Client, draws
from bench.comparison.server import running
from bench.comparison.systems import SYSTEMS, Engine, System, Tuning
from bench.comparison.trace import Call
from jobs.settings import BUNDLED_MODEL
from worker.engine.engine import Engine as OurEngine
from worker.generate import generate, generate_batch
from worker.model_folder.loading import load

CALL = Call(0.0, "a smiling cat face", 7, 2, 60.0)
PROMPTS, SEEDS = [CALL.prompt] * CALL.images, [CALL.seed + index for index in range(CALL.images)]


@cache
def expected(engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    """The call's pictures, made one at a time and together: in bfloat16 a batch of two has other bits than two alone.

    diffusers' pipeline computes in float32, as its users load it.
    """
    model = load(str(BUNDLED_MODEL), dtype="float32" if engine == "diffusers" else "auto")
    if engine == "sampler":
        model = replace(model, network=model.network.converted())
    ours = OurEngine(model, max_batch=2)
    alone = [generate(ours, [prompt], [seed])[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    return np.stack(alone), np.stack(generate_batch(model, PROMPTS, SEEDS))


async def _asked(system: System, port: int) -> np.ndarray:
    client = Client(system, port)
    [answer] = await client.together([CALL])
    assert answer.ok, answer
    pictures = [client.pictures[CALL.prompt, CALL.seed + index][0] for index in range(CALL.images)]
    return np.stack([np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in pictures])


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "engine"),
    [*((name, "sampler") for name in SYSTEMS if name != "fourstep"), ("FastAPI + lock", "diffusers")],
)
async def test_it_draws_our_pictures(name: str, engine: Engine) -> None:
    system = SYSTEMS[name]
    if not system.installed:
        pytest.skip(f"needs the extra `peers` for {system.package}: pip install --editable '.[peers]'")

    def started() -> np.ndarray:
        with running(system, engine, Tuning(), partial(draws, system)) as server:
            return asyncio.run(_asked(system, server.ports.http))

    found = await asyncio.to_thread(started)
    alone, together = expected(engine)
    assert found.shape == alone.shape
    # Another layout in memory or diffusers' order of operations: the last bits of a float.
    assert min(np.abs(found.astype(int) - pictures).max() for pictures in (alone, together)) <= 2
