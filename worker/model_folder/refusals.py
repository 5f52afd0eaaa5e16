"""Refuse what a model folder must not hold: code, files that never end, networks beyond any machine."""

from collections.abc import Iterable
from pathlib import Path

from worker.errors import FolderRefusedError
from worker.model_folder.json_files import read_object, weight_map
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
            for file in sorted(set(weight_map(index).values())):
                if Path(file).name != file or not file.endswith(".safetensors"):
                    raise FolderRefusedError(f"{component}/{index.name}: {file!r} is no safetensors file beside it")


def refuse_endless_networks(folder: Path, components: Iterable[str]) -> None:
    """Refuse configurations with more layers than any network has: to make them would never end."""
    for component in components:
        config = folder / component / "config.json"
        for name, value in read_object(config).items() if config.is_file() else ():
            if "layers" in name and isinstance(value, int) and value > MOST_LAYERS:
                raise FolderRefusedError(f"{component}/config.json: {name} is {value}")
