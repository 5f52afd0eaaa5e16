"""Refuse what a model folder must not hold: code, files that never end, networks beyond any machine."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from worker.errors import FolderRefusedError
from worker.model_folder.weights_hash import files_below

MOST_LAYERS = 10_000
MOST_BYTES = 64 * 2**20
"""Size of a file of JSON."""


def refuse_endless_files(folder: Path) -> None:
    """Refuse devices and pipes, also behind links, and JSON that is too large. Raises FolderRefusedError."""
    for path in files_below(folder):
        if path.suffix == ".json" and (folder / path).stat().st_size > MOST_BYTES:
            raise FolderRefusedError(f"{path}: more than {MOST_BYTES // 2**20} MiB of JSON")


def refuse_foreign_shards(folder: Path, components: Iterable[str]) -> None:
    """Refuse an index of weights in one of the `components` that names other files than safetensors beside it."""
    for component in components:
        for index in sorted((folder / component).glob("*.index*.json")):
            _refuse_other_files(f"{component}/{index.name}", _read(index))


def refuse_endless_networks(folder: Path, components: Iterable[str]) -> None:
    """Refuse configurations with more layers than any network has: to make them would never end."""
    for component in components:
        config = folder / component / "config.json"
        for name, value in _read(config).items() if config.is_file() else ():
            if "layers" in name and isinstance(value, int) and value > MOST_LAYERS:
                raise FolderRefusedError(f"{component}/config.json: {name} is {value}")


def _refuse_other_files(name: str, index: dict[str, Any]) -> None:
    files = index.get("weight_map")
    for file in set(files.values()) if isinstance(files, dict) else ():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise FolderRefusedError(f"{name}: {file!r} is no safetensors file beside it")


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise FolderRefusedError(f"{path.parent.name}/{path.name}: not JSON: {error}") from error
    return document if isinstance(document, dict) else {}
