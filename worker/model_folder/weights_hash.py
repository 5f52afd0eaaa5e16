"""The hashes of a model folder: of its weights, and of all that its pictures depend on."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.sampling_contract import SamplingContract
from worker.errors import FolderRefusedError

CONFIGURATION = (".json", ".txt", ".model")
"""Endings of the files beside the weights that a pipeline is made from: configurations and vocabularies."""

SAMPLING = {"prediction", "steps", "sigmas", "timesteps", "sampler", "guidance_scale", "max_sequence_length"}
"""The fields of a sampling contract that pictures depend on."""


def weights_sha256(*folders: Path) -> str:
    """Return the sha256 (hex) over names and hashes of all safetensors files below each folder, in the order of names.

    Folders with equal weights have equal hashes, whatever else lies in them. Links are followed.
    """
    return _sha256(folders, lambda path: path.suffix == ".safetensors")


def model_sha256(contract: SamplingContract, *folders: Path) -> str:
    """Return the sha256 (hex) over all that pictures depend on: weights, configurations, vocabularies and sampling."""
    sampling = contract.model_dump_json(include=SAMPLING)
    parts = [weights_sha256(*folders), _sha256(folders, _is_configuration), sampling]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


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


def _is_configuration(path: Path) -> bool:
    """Whether a pipeline reads the file: at the top of the folder that is model_index.json alone."""
    return path.suffix in CONFIGURATION and (len(path.parts) > 1 or path.name == "model_index.json")


def _sha256(folders: tuple[Path, ...], counts: Callable[[Path], bool]) -> str:
    total = hashlib.sha256()
    for folder in folders:
        for path in filter(counts, files_below(folder)):
            with open(folder / path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.as_posix()} {digest}\n".encode())
    return total.hexdigest()
