"""Each peer app starts and draws our pictures, with our sampler and with diffusers' pipeline."""

import asyncio
import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from bench.comparison.client import Client, draws
from bench.comparison.server import running
from bench.comparison.systems import SYSTEMS, Engine, System, Tuning
from bench.comparison.trace import Call
from jobs.settings import BUNDLED_MODEL
from worker.engine import Engine as OurEngine
from worker.generate import generate
from worker.model_folder import load

CALL = Call(0.0, "a smiling cat face", 7, 2, 60.0)
AT_40_DB = 255**2 / 10**4
"""Mean squared error, in levels of 0…255, at a PSNR of 40 dB."""


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    engine = OurEngine(load(str(BUNDLED_MODEL)), max_batch=2)
    return np.stack([generate(engine, [CALL.prompt], [CALL.seed + index])[0] for index in range(CALL.images)])


async def _asked(system: System, port: int) -> np.ndarray:
    client = Client(system, port)
    [answer] = await client.together([CALL])
    assert answer.ok, answer
    pictures = [client.pictures[CALL.prompt, CALL.seed + index][0] for index in range(CALL.images)]
    return np.stack([np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in pictures])


def squared_error(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Of each picture; both are uint8 [N, H, W, 3]."""
    return ((ours.astype(float) - theirs) ** 2).mean((1, 2, 3))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "engine"),
    [*((name, "sampler") for name in SYSTEMS if name != "fourstep"), ("FastAPI + lock", "diffusers")],
)
async def test_it_draws_our_pictures(name: str, engine: Engine, expected: np.ndarray) -> None:
    system = SYSTEMS[name]
    if not system.installed:
        pytest.skip(f"{system.package} is not installed: it comes with the extra `peers`")

    def started() -> np.ndarray:
        with running(system, engine, Tuning(), partial(draws, system)) as server:
            return asyncio.run(_asked(system, server.ports.http))

    found = await asyncio.to_thread(started)
    assert found.shape == expected.shape
    # A batch of two, diffusers' order of operations, float32 beside bfloat16: close, but not the same bits.
    assert (squared_error(found, expected) < AT_40_DB).all()
    assert (squared_error(found, expected[::-1]) > 10 * AT_40_DB).all()  # the other seed's
