"""Fetch models from the Hugging Face hub: only those that are served, and only the files that are needed."""

from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError

from worker.errors import FolderRefusedError
from worker.model_folder.pipeline_folder import INDEX, read_index


def fetch(model: str) -> Path:
    """Return the folder of the hub's `model` in the cache, which is enough when the hub is out of reach.

    The pipeline's class is read before anything large is fetched. Raises FolderRefusedError.
    """
    try:
        index = read_index(Path(hf_hub_download(model, INDEX)).parent)
    except EntryNotFoundError as error:
        raise FolderRefusedError(f"{INDEX}: missing in {model}, so it is not a diffusers pipeline") from error
    except (OSError, ValueError) as error:
        raise FolderRefusedError(f"model: {model} is no folder here, and cannot be downloaded: {error}") from error
    try:
        names = HfApi().list_repo_files(model)
    except (OSError, ValueError):
        return Path(snapshot_download(model, local_files_only=True))
    index.refuse_pickles(names)
    try:
        return Path(snapshot_download(model, allow_patterns=index.needed(names)))
    except (OSError, ValueError) as error:
        raise FolderRefusedError(f"model: {model} cannot be downloaded: {error}") from error
