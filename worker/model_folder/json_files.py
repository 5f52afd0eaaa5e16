"""Read the JSON files of model folders, which anybody may have written."""

import json
from pathlib import Path
from typing import Any

from worker.errors import FolderRefusedError


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a file of JSON. Raises FolderRefusedError, beginning with the file's name."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise FolderRefusedError(f"{path.name}: {path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise FolderRefusedError(f"{path.name}: {path} holds no object")
    return document


def weight_map(index: Path) -> dict[str, str]:
    """Return the file of each weight by an `index` of several files. Raises FolderRefusedError."""
    files = read_object(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise FolderRefusedError(f"{index.name}: {index} does not say in which file each weight is")
    return files
