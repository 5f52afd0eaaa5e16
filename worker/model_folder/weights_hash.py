"""One hash for all weights of a model folder."""

import hashlib
from pathlib import Path


def weights_sha256(*folders: Path) -> str:
    """sha256 (hex) over the names and hashes of every safetensors file below each folder, in the order of their names.

    Two folders with equal weights have equal hashes, whatever else lies in them.
    """
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.safetensors"), key=lambda path: path.relative_to(folder).as_posix()):
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()
