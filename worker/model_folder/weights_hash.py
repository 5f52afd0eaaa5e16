"""The hash of the weights in a model folder."""

import hashlib
from pathlib import Path


def weights_sha256(*folders: Path) -> str:
    """Return the sha256 (hex) over names and hashes of all safetensors files below each folder, in the order of names.

    Folders with equal weights have equal hashes, whatever else lies in them.
    """
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.safetensors"), key=lambda path: path.relative_to(folder).as_posix()):
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()
