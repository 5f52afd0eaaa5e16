"""The hashes of a model folder: of its weights, and of all that its pictures depend on."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError
from worker.model_folder.pipeline_folder import INDEX, names_in, read_index

CONFIGURATION = (".json", ".txt", ".model")
"""Endings of the files beside the weights that a pipeline is made from: configurations and vocabularies."""

APART = {
    "schema_version",
    "method",
    "family",
    "sizes",
    "anchor_k",
    "lambda_",
    "teacher",
    "base",
    "base_sha256",
    "parts",
    "metrics",
    "examples",
}
"""The fields of a sampling contract that no picture depends on, beside the weights."""


def weights_sha256(*folders: Path) -> str:
    """Return the sha256 (hex) over names and hashes of the weights in each folder, in the order of names.

    The weights are the safetensors files that are loaded of a pipeline, and all of another folder. Folders with equal
    weights have equal hashes, whatever else lies in them. Links are followed.
    """
    return _sha256((folder, name) for folder in folders for name in _weights(folder))


def model_sha256(contract: SamplingContract, *folders: Path) -> str:
    """Return the sha256 (hex) over all that pictures depend on: weights, configurations, vocabularies and sampling."""
    sampling = contract.model_dump_json(exclude=APART, exclude_defaults=True)
    configuration = _sha256((folder, name) for folder in folders for name in _configuration(folder))
    return hashlib.sha256("\n".join([weights_sha256(*folders), configuration, sampling]).encode()).hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the paths of all files, relative to `folder`, in the order of names; links are followed.

    Raises FolderRefusedError for what is no plain file: reading it might never end.
    """
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name).relative_to(folder) for name in names]
    for path in sorted(found, key=Path.as_posix):
        if not (folder / path).is_file():
            raise FolderRefusedError(f"{path}: not a plain file")
        yield path


def _weights(folder: Path) -> list[str]:
    if (folder / INDEX).is_file():
        index = read_index(folder)
        return index.weights(names_in(folder, list(index.components)))
    return [path.as_posix() for path in files_below(folder) if path.suffix == ".safetensors"]


def _configuration(folder: Path) -> list[str]:
    """Return the paths of the files that a pipeline is made from: at the top of the folder that is its index alone."""
    if (folder / INDEX).is_file():
        index = read_index(folder)
        names = [INDEX, *sorted(names_in(folder, list(index.components)))]
    else:
        names = [path.as_posix() for path in files_below(folder) if len(path.parts) > 1]
    return [name for name in names if name.endswith(CONFIGURATION)]


def _sha256(files: Iterable[tuple[Path, str]]) -> str:
    total = hashlib.sha256()
    for folder, name in files:
        with open(folder / name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name} {digest}\n".encode())
    return total.hexdigest()
