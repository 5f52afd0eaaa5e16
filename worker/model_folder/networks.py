"""Read the networks of a pipeline folder, whole: what their files lack is never made up."""

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open

from worker.errors import FolderRefusedError
from worker.model_folder.json_files import weight_map
from worker.model_folder.pipeline_folder import PipelineIndex, names_in
from worker.model_folder.refusals import refuse_endless_networks, refuse_foreign_shards

LISTED = 3


def read_networks(
    folder: Path, index: PipelineIndex, dtype: Any, *, skip: Collection[str] = (), shapes_only: bool = False
) -> dict[str, Any]:
    """Read the networks of `index` that have a configuration in `folder`, but for those called as in `skip`.

    `dtype` is a torch.dtype or, by component, several with a "default"; None for that of the files. With `shapes_only`
    the tensors are on the meta device, where they have no memory. Raises FolderRefusedError for a network that is
    endless, does not fit its configuration, or lacks a weight in its files.
    """
    refuse_foreign_shards(folder, index.components)
    refuse_endless_networks(folder, index.components)
    libraries, found = {"diffusers": diffusers, "transformers": transformers}, {}
    for name, (library, kind_name) in index.components.items():
        kind: Any = getattr(libraries.get(library), kind_name, None)
        is_network = isinstance(kind, type) and issubclass(kind, torch.nn.Module)
        if not is_network or name in skip or not (folder / name / "config.json").is_file():
            continue
        _refuse_lacking_shards(folder / name, name)
        found[name] = read_network(
            kind,
            folder / name,
            name,
            dtype=dtype.get(name, dtype["default"]) if isinstance(dtype, dict) else dtype,
            variant=index.variant(names_in(folder, [name])),
            device_map="meta" if shapes_only else None,
        )
    return found


def read_network(kind: Any, folder: Path, name: str, **options: Any) -> Any:
    """Return the network of the class `kind` in `folder`, from safetensors alone, with `options` of `from_pretrained`.

    Raises FolderRefusedError, which begins with `name`, as diffusers and transformers would fill with random values
    what the files lack, or leave it empty, and only warn. Weights that are tied to others are not lacking.
    """
    try:
        network, told = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise FolderRefusedError(f"{name}: {folder} does not load: {reason}") from error
    _refuse_missing(sorted(told["missing_keys"]), folder, name)
    return network


def _refuse_lacking_shards(folder: Path, name: str) -> None:
    """Raise FolderRefusedError when shards in `folder` lack a weight that their index promises: diffusers goes by the
    index."""
    for index in folder.glob("*.safetensors.index*.json"):
        promised: dict[str, set[str]] = defaultdict(set)
        for weight, file in weight_map(index).items():
            promised[file].add(weight)
        missing = list[str]()
        for file, weights in promised.items():
            if (folder / file).is_file():  # else it is of a variant that is not read, or missing as a whole
                missing += weights - _names_in(folder / file, name)
        _refuse_missing(sorted(missing), folder, name)


def _names_in(file: Path, name: str) -> set[str]:
    try:
        with safe_open(file, "pt") as shard:
            return set(shard.keys())
    except SafetensorError as error:
        raise FolderRefusedError(f"{name}: {file} does not load: {error}") from error


def _refuse_missing(missing: list[str], folder: Path, name: str) -> None:
    if missing:
        more = f", … {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        noun = "weight" if len(missing) == 1 else "weights"
        raise FolderRefusedError(f"{name}: {folder} lacks {len(missing)} {noun}: {', '.join(missing[:LISTED])}{more}")
