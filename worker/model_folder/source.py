"""Check the name of a model before anything slow is imported."""

from difflib import get_close_matches
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
        raise FolderRefusedError(f"model: {model} is neither a folder nor a hub id (owner/name){_meant(model)}")


def _meant(model: str) -> str:
    """The question whether the model folder of the nearest name, here or in `models`, was meant; empty without one."""
    folders = {found.parent.name: found.parent for found in Path().glob("*/model_index.json")}
    folders |= {found.parent.name: found.parent for found in Path("models").glob("*/model_index.json")}
    near = get_close_matches(Path(model).name, folders, n=1)
    return f"; did you mean {folders[near[0]]}?" if near else ""
