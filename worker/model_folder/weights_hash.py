"""The hash of the weights in a model folder."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from worker.model_folder.pipeline_folder import INDEX, names_in, read_index


def weights_sha256(*folders: Path) -> str:
    """Return the sha256 (hex) over names and hashes of the weights in each folder, in the order of names.

    The weights are the safetensors files that are loaded of a pipeline, and all of another folder. Folders with equal
    weights have equal hashes, whatever else lies in them.
    """
    total = hashlib.sha256()
    for folder in folders:
        for name in _weights(folder):
            with open(folder / name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{name} {digest}\n".encode())
    return total.hexdigest()


def _weights(folder: Path) -> Iterable[str]:
    if (folder / INDEX).is_file():
        index = read_index(folder)
        return index.weights(names_in(folder, list(index.components)))
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
