"""Find what is to be imported, and tell from itself what it is."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file

from worker.importing.presets import Kind, Preset
from worker.model_folder.hub import SETTINGS
from worker.model_folder.json_files import read_object
from worker.model_folder.pipeline_folder import INDEX

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of a name that data parallelism, compilation, FSDP and activation checkpointing leave behind."""
ALL_IN_ONE = "model.diffusion_model."
CONFIG, NETWORK_WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Source:
    """A source to import: its `kind`, where it lies, and its tensors by name, of which a pipeline has none here.

    `folder` holds the configurations of a pipeline or network that has them; `hub` is the id of a pipeline on the hub.
    """

    kind: Kind
    path: Path
    tensors: Tensors
    folder: Path | None = None
    hub: str | None = None

    @property
    def name(self) -> str:
        return self.path.name


def find(given: str, preset: Preset) -> Source:
    """Return the source that `given` names: a file, a folder, a hub id, or a hub id and a file in it.

    Of a hub pipeline only configurations are fetched. A hub id alone stands for the preset's own file in it, and so
    does a folder with that file, or with a LoRA file as diffusers names it.
    Raises ValueError for one that is nothing that can be imported or is out of reach, OSError when it cannot be read.
    """
    path = Path(given)
    if path.is_dir():
        return _folder(path, preset)
    if path.is_file():
        return _file(path)
    parts = given.split("/")
    if given.startswith((".", "/", "~")) or len(parts) < 2 or not all(parts):
        raise ValueError(
            f"{given} is neither a file or folder here, nor a hub id, nor a hub id and a file (owner/name/file)"
        )
    repository, name = "/".join(parts[:2]), "/".join(parts[2:])
    if not name and repository == preset.repository:
        name = preset.file
    try:
        return _on_hub(repository, name, preset)
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{given} cannot be downloaded: the Hugging Face hub is out of reach, and its cache on this machine does"
            " not hold it"
        ) from error


def _on_hub(repository: str, name: str, preset: Preset) -> Source:
    if name:
        return _file(Path(hf_hub_download(repository, name)))
    try:
        hf_hub_download(repository, INDEX)
    except EntryNotFoundError as error:
        folder = Path(snapshot_download(repository, allow_patterns=[CONFIG, NETWORK_WEIGHTS]))
        if isinstance(error, LocalEntryNotFoundError) and not (folder / NETWORK_WEIGHTS).is_file():
            raise  # what the cache holds of the repository does not say what is in it
        return _folder(folder, preset)
    folder = Path(snapshot_download(repository, allow_patterns=SETTINGS))
    return Source("pipeline", folder, {}, folder, repository)


def _folder(folder: Path, preset: Preset) -> Source:
    for name in filter(None, [preset.file, LORA_WEIGHT_NAME_SAFE if "LoRA file" in preset.kinds else ""]):
        if (folder / name).is_file():
            return _file(folder / name)
    if (folder / INDEX).is_file():
        return Source("pipeline", folder, {}, folder)
    weights = folder / NETWORK_WEIGHTS
    if not weights.is_file():
        weights = weights.with_name(NETWORK_WEIGHTS.replace(".safe", ".fp16.safe"))
    if not (folder / CONFIG).is_file() or not weights.is_file():
        raise ValueError(f"{folder} holds neither a pipeline ({INDEX}) nor a network ({CONFIG} and {NETWORK_WEIGHTS})")
    return Source("network", folder, read_tensors(weights), folder)


def _file(path: Path) -> Source:
    tensors = read_tensors(path)
    if any("lora" in name for name in tensors):
        return Source("LoRA file", path, tensors)
    if any(name.startswith(ALL_IN_ONE) for name in tensors):
        return Source("all-in-one file", path, tensors)
    return Source("network", path, tensors)


def read_tensors(file: Path) -> Tensors:
    """Return the tensors in `file` by the network's own names; no code in it is run. Raises ValueError for others."""
    try:
        if file.suffix == ".safetensors":
            content: object = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{file}: not a checkpoint of tensors alone ({str(error).splitlines()[0]})") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{file}: expected names with tensors, a network's state dict")
    return {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): value for name, value in content.items()
    }


def setting(folder: Path, file: str, name: str) -> object:
    """Return the setting `name` of the JSON `file` in `folder`; None where there is none."""
    path = folder / file
    return read_object(path).get(name) if path.is_file() else None
