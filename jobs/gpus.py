"""The GPUs of this machine that a process may use, without loading PyTorch."""

import os
import re
import shutil
import subprocess
from itertools import pairwise

VISIBLE = "CUDA_VISIBLE_DEVICES"
NAME = re.compile(r"\d+|GPU-[\w-]+|MIG-[\w/-]+")
LISTED = re.compile(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)")
TIMEOUT_S = 30.0


def visible_gpus() -> list[str]:
    """Return a name for each GPU, as CUDA_VISIBLE_DEVICES may hold it; empty where there is none.

    What CUDA_VISIBLE_DEVICES lists, as it stands there; else the UUIDs of `nvidia-smi`, of a divided GPU those of its
    MIG instances.
    """
    if (given := os.environ.get(VISIBLE)) is not None:
        return _given(given)
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # no driver
        return []
    found = LISTED.findall(listed)
    divided = {gpu for gpu, part in pairwise(found) if not _is_part(gpu) and _is_part(part)}
    return [name for name in found if name not in divided]


def _given(names: str) -> list[str]:
    """CUDA reads the list up to the first name that means nothing, such as -1."""
    found: dict[str, None] = {}
    for name in (name.strip() for name in names.split(",")):
        if not NAME.fullmatch(name):
            break
        found[name] = None
    return list(found)


def _is_part(name: str) -> bool:
    return name.startswith("MIG-")
