"""Files of a benchmark's figures, with the machine they were taken on."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def write(name: str, figures: dict[str, Any]) -> None:
    """Write bench/results/NAME.json: `figures`, and what they depend on."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")


def read(name: str, folder: Path | None = None) -> Any:
    """Return what NAME.json in `folder`, by default bench/results, holds; None when it has not been measured yet."""
    path = (folder or RESULTS) / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        **_processor(),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _processor() -> dict[str, Any]:
    """Model and the extensions that decide about speed, where the system lists them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"cpu_model": platform.processor()}
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in facts.items()}
    flags = fields.get("flags", "").split()
    return {
        "cpu_model": fields.get("model name", platform.processor()),
        "avx512": "avx512f" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "amx": "amx_tile" in flags,
    }
