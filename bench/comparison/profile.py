"""Profile the worker at saturation: `python -m bench.comparison.profile`, by py-spy (it comes with Ray).

Shares of the samples of the thread that draws, and of the other threads beside it, by the outermost function of ours
that names a stage.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from bench import results_file
from bench.comparison import trace
from bench.comparison.client import Client, draws
from bench.comparison.server import Server, running
from bench.comparison.systems import SYSTEMS, Tuning

NAME = "comparison_profile"
SECONDS, RATE, CALLERS = 12, 100, 16
DRAWING = {
    "text encoders": "prompt_cache.py",
    "denoising network": "denoising_step.py",
    "decoder": "decode (worker/families/base.py",
    "plan": "scheduler.py",
}
BESIDE = {"queue and Redis": "consumer.py", "image files": "image_bytes.py", "settling": "results.py"}


async def _profiled(server: Server) -> list[str]:
    """py-spy's stacks, outermost frame first, of the worker and its engine's process under 16 callers."""
    client = Client(server.system, server.ports.http)
    busy = server.cpu_by_thread(server.model_process())
    await client.closed_loop(trace.singles(24, -2), 8)
    server.pin(busy)
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        py_spy = str(Path(sys.executable).with_name("py-spy"))
        record = [py_spy, "record", "--nonblocking", "--subprocesses", "--threads", "--format", "raw"]
        recorder = await asyncio.create_subprocess_exec(
            *record, "--rate", str(RATE), "--duration", str(SECONDS),
            "--pid", str(server.worker_process().pid), "--output", str(stacks),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        pending = [asyncio.create_task(_send_until(recorder, client, caller)) for caller in range(CALLERS)]
        await recorder.wait()
        await asyncio.gather(*pending)
        return stacks.read_text().splitlines()


async def _send_until(recorder: asyncio.subprocess.Process, client: Client, caller: int) -> None:
    for call in trace.singles(1000, 1000 + caller):
        if recorder.returncode is not None:
            return
        await client.together([call])


def shares(stacks: list[str]) -> dict[str, dict[str, float]]:
    """Lines of "frame;frame;… count" → share of each stage in the drawing thread, and in the others."""
    drawing, beside = Counter[str](), Counter[str]()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        draws_here = "device_thread.py" in frames
        stages, counter = (DRAWING, drawing) if draws_here else (BESIDE, beside)
        counter[next((stage for stage, mark in stages.items() if mark in frames), "other")] += int(count)
    total = sum(drawing.values())
    return {
        "drawing thread": {stage: round(count / total, 4) for stage, count in drawing.most_common()},
        "beside it": {stage: round(count / total, 4) for stage, count in beside.most_common()},
    }


def main() -> None:
    ours = SYSTEMS["fourstep"]
    with running(ours, "sampler", Tuning(), partial(draws, ours)) as server:
        stacks = asyncio.run(_profiled(server))
    figures: dict[str, Any] = {"seconds": SECONDS, "samples_per_s": RATE, **shares(stacks)}
    results_file.write(NAME, figures)


if __name__ == "__main__":
    main()
