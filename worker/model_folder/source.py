"""Check the name of a model before anything slow is imported."""

from pathlib import Path

from worker.errors import FolderRefusedError


def check_source(model: str) -> None:
    """Raise FolderRefusedError when `model` is neither a folder nor looks like a hub id."""
    if Path(model).is_dir():
        return
    if "," in model:
        raise FolderRefusedError(
            f"model: a worker serves one model, not {model}; `fourstep up A B` runs a worker for each"
        )
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise FolderRefusedError(f"model: {model} is neither a folder nor a hub id (owner/name)")
