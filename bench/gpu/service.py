"""The part of the benchmark that runs `fourstep up` on the bundled model under load, while it gets faster code."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from bench.engine.quantization import psnr
from bench.gpu.device import Device
from bench.gpu.figures import Figure, Figures
from jobs.settings import BUNDLED_MODEL
from jobs.testing.redis_servers import free_port

CALLERS, PROMPTS = 16, ("a smiling cat face", "a red apple", "fire", "a house")
LEAST_DB = 40.0
PATIENCE_S = 120.0
SWITCH_S = 400.0
"""A command on the device has ten minutes, of which the service's is the last part."""
SWITCHED = re.compile(r"ready in \d+ s|failed: serving on without")
STRICT_EVERY = 4


@dataclass
class Up:
    """A running `fourstep up`: addresses of the API and of the worker's metrics, and its log."""

    process: subprocess.Popen[bytes]
    url: str
    metrics_url: str
    log: Path

    def switched(self) -> str | None:
        """Return the line of the log that says how the switch ended, once it has."""
        return next((line for line in self.log.read_text().splitlines() if SWITCHED.search(line)), None)

    def gap_ms(self) -> float | None:
        """The mean time from the end of a step to the launch of the next since the start, in milliseconds."""
        total: dict[str, float] = {}
        for family in text_string_to_metric_families(httpx.get(self.metrics_url, timeout=PATIENCE_S).text):
            if family.name == "fourstep_step_gap_seconds":
                for sample in family.samples:
                    total[sample.name] = total.get(sample.name, 0.0) + sample.value
        count = total.get("fourstep_step_gap_seconds_count", 0.0)
        return round(1000 * total["fourstep_step_gap_seconds_sum"] / count, 3) if count else None


def service(device: Device, figures: Figures, tiny: bool) -> None:
    """Add the figures of the whole service, with or without a GPU."""
    about = {"model": "emoji-student", "size": 64, "rows": CALLERS, "how": "fourstep up"}
    figures.add("service", lambda: _measured(device, 2 if tiny else 30), **about)


def _measured(device: Device, least_seconds: float) -> Figure:
    """Load it from the start until the switch and for `least_seconds` more; compare every picture with itself alone."""
    with _up(device) as up, httpx.Client(base_url=up.url, timeout=PATIENCE_S) as client:
        began, answers = time.perf_counter(), list[tuple[int, bytes]]()
        with ThreadPoolExecutor(CALLERS) as callers:
            while (line := up.switched()) is None:
                if time.perf_counter() - began > SWITCH_S:
                    raise RuntimeError(f"no switch to compiled code within {SWITCH_S:.0f} s")
                answers += _round(callers, client, len(answers))
            switched_after = time.perf_counter() - began
            steady = time.perf_counter()
            first = len(answers)
            while time.perf_counter() - steady < least_seconds:
                answers += _round(callers, client, len(answers))
            rate = (len(answers) - first) / (time.perf_counter() - steady)
            gap = up.gap_ms()
            alone = {seed: _drawn(client, seed) for seed in {seed for seed, _ in answers}}
        strict = [picture == alone[seed] for seed, picture in answers if _is_strict(seed)]
        fast = [psnr(_pixels(picture), _pixels(alone[seed])) for seed, picture in answers if not _is_strict(seed)]
        return {
            "pictures": len(answers),
            "images_per_s": round(rate, 2),
            "mean_gap_ms": gap,
            "switched_after_s": round(switched_after, 1),
            "switch": json.loads(line)["event"],
            "strict_of_other_bits": strict.count(False),
            "worst_db": round(min(fast), 1),
            "below_40_db": sum(each < LEAST_DB for each in fast),
        }


SEEDS = 64
"""Pictures that are asked for in turn, so that each is asked for alone in seconds afterwards."""


def _round(callers: ThreadPoolExecutor, client: httpx.Client, made: int) -> list[tuple[int, bytes]]:
    seeds = [(made + each) % SEEDS for each in range(2 * CALLERS)]
    return list(zip(seeds, callers.map(lambda seed: _drawn(client, seed), seeds), strict=True))


def _drawn(client: httpx.Client, seed: int) -> bytes:
    """The PNG of one picture."""
    body = {"prompt": PROMPTS[seed % len(PROMPTS)], "seed": seed, "mode": "strict" if _is_strict(seed) else "fast"}
    answer = client.post("/generate", json=body | {"timeout": PATIENCE_S})
    answer.raise_for_status()
    return base64.b64decode(answer.json()["images"][0]["b64"])


def _is_strict(seed: int) -> bool:
    return seed // len(PROMPTS) % STRICT_EVERY == 0


def _pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


@contextmanager
def _up(device: Device) -> Iterator[Up]:
    port, metrics_port = free_port(), free_port()
    settings: dict[str, Any] = {"PORT": port, "METRICS_PORT": metrics_port, "DEVICE": device.torch.type, "WORKERS": 1}
    settings["MAX_BATCH"] = 8  # every batch of "auto" would be compiled
    own = {name: value for name, value in os.environ.items() if not name.startswith("FOURSTEP_")}
    command: Sequence[str] = [sys.executable, "-m", "fourstep", "up", str(BUNDLED_MODEL)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as file:
            environment = own | {f"FOURSTEP_{name}": str(value) for name, value in settings.items()}
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=file)
        up = Up(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics", log)
        try:
            _wait_until_ready(up)
            yield up
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(up: Up) -> None:
    ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            if httpx.get(f"{up.url}/readyz", timeout=PATIENCE_S).is_success:
                return
        except httpx.TransportError:
            pass
        if up.process.poll() is not None or time.monotonic() > ends:
            raise RuntimeError(f"fourstep up did not start: {up.log.read_text()[-500:]}")
        time.sleep(0.1)
