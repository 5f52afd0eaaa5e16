"""Fetch models from the Hugging Face hub: only those that are served, and only the files that are needed."""

import logging
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from worker.errors import FolderRefusedError
from worker.model_folder.pipeline_folder import INDEX, read_index

log = logging.getLogger(__name__)


def fetch(model: str) -> Path:
    """Return the folder of the hub's `model` in the cache, which is enough when the hub is out of reach.

    The pipeline's class is read before anything large is fetched. Raises FolderRefusedError.
    """
    try:
        index_file = hf_hub_download(model, INDEX)
    except LocalEntryNotFoundError as error:
        raise FolderRefusedError(f"model: {model} is no folder here, and cannot be downloaded: {error}") from error
    except EntryNotFoundError as error:
        raise FolderRefusedError(f"{INDEX}: missing in {model}, so it is not a diffusers pipeline") from error
    except (OSError, ValueError) as error:
        raise FolderRefusedError(f"model: {model} is no folder here, and cannot be downloaded: {error}") from error
    index = read_index(Path(index_file).parent)
    try:
        names = HfApi().list_repo_files(model)
    except Exception as error:  # Each way of being out of reach has an error of its own.
        log.warning("%s: the hub is out of reach (%s), so the cache must do", model, type(error).__name__)
        return Path(index_file).parent
    index.refuse_pickles(names)
    try:
        return Path(snapshot_download(model, allow_patterns=index.needed(names)))
    except (OSError, ValueError) as error:
        raise FolderRefusedError(f"model: {model} cannot be downloaded: {error}") from error
