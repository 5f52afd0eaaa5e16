"""Fetch models from the Hugging Face hub: only those that are served, and only the files that are needed."""

import logging
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from worker.errors import FolderRefusedError
from worker.model_folder.pipeline_folder import INDEX, read_index

SETTINGS = ["*.json", "README.md"]
"""The small files of a pipeline: its index, configurations and tokenizers, and the model's card."""

log = logging.getLogger(__name__)
logging.getLogger("huggingface_hub").handlers.clear()  # its lines reach the root's handler too


def fetch(model: str, *, settings_only: bool = False) -> Path:
    """Return the folder of the hub's `model` in the cache, which is enough when the hub is out of reach.

    The pipeline's class is read before anything large is fetched; with `settings_only` nothing large is, only JSON and
    the card. Raises FolderRefusedError.
    """
    log.info("%s is no folder here: asking the Hugging Face hub for it", model)
    index_file = _index_file(model)
    index = read_index(index_file.parent)
    try:
        names = HfApi().list_repo_files(model)
    except Exception as error:  # Each way of being out of reach has an error of its own.
        log.warning("%s: the hub is out of reach (%s), so the cache must do", model, type(error).__name__)
        return index_file.parent
    index.refuse_pickles(names)
    try:
        return Path(snapshot_download(model, allow_patterns=SETTINGS if settings_only else index.needed(names)))
    except (OSError, ValueError) as error:
        raise FolderRefusedError(f"model: {model} cannot be downloaded: {error}") from error


def _index_file(model: str) -> Path:
    try:
        return Path(hf_hub_download(model, INDEX))
    except RepositoryNotFoundError as error:
        raise FolderRefusedError(
            f"model: {model} is no folder here{_beside(model)}, and the Hugging Face hub has none of this name that "
            "you may read; a gated one needs HF_TOKEN"
        ) from error
    except LocalEntryNotFoundError as error:
        raise FolderRefusedError(
            f"model: {model} is no folder here{_beside(model)}, and cannot be downloaded: the Hugging Face hub is out "
            "of reach, and its cache on this machine does not hold it"
        ) from error
    except EntryNotFoundError as error:
        raise FolderRefusedError(f"{INDEX}: missing in {model}, so it is not a diffusers pipeline") from error
    except (OSError, ValueError) as error:
        raise FolderRefusedError(f"model: {model} is no folder here, and cannot be downloaded: {error}") from error


def _beside(model: str) -> str:
    """Name the model folders that lie where `model` would."""
    folders = sorted(index.parent.name for index in Path(model).parent.glob(f"*/{INDEX}"))
    return f" ({Path(model).parent} has {', '.join(folders)})" if folders else ""
