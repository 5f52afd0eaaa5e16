"""The pipeline that an imported model takes its other networks from."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE

from jobs.sampling_contract import FILE_NAME, SamplingContract
from worker.model_folder import hub
from worker.model_folder.pipeline_folder import INDEX


@dataclass(frozen=True)
class Base:
    """A base model: `name` is how a contract names it, and `folder` holds its settings.

    hub: the id that its weights are fetched by; None where they lie in `folder`.
    parts: component → the folder that replaces the pipeline's own, when the base was imported itself.
    """

    name: str
    folder: Path
    hub: str | None = None
    parts: dict[str, Path] = field(default_factory=dict)

    def configured(self, component: str) -> Path:
        """The folder with the configuration of a `component`."""
        return self.parts.get(component, self.folder / component)


def find(given: str, out: Path) -> Base:
    """Return the base model `given`, a folder or hub id, for one written to `out`; of the hub only settings are read.

    For a folder that an import has written it is the base of that, with the folder's own denoiser. Raises ValueError
    for one with a LoRA file, FolderRefusedError for a hub id that cannot be served.
    """
    folder = Path(given)
    if not folder.is_dir():
        return Base(given, hub.fetch(given, settings_only=True), given)
    whole = (folder / INDEX).is_file() or not (folder / FILE_NAME).is_file()
    contract = None if whole else SamplingContract.load(folder)
    if contract is None or contract.base is None:
        return Base(beside(folder, out), folder)
    names = [LORA_WEIGHT_NAME_SAFE] if contract.parts is None else contract.parts
    if LORA_WEIGHT_NAME_SAFE in names:
        raise ValueError(f"--base: {folder} holds a LoRA file, and cannot be a base; its own is {contract.base}")
    own, parts = folder / contract.base, {name: folder / name for name in names}
    if own.is_dir():
        return Base(beside(own, out), own, parts=parts)
    return Base(contract.base, hub.fetch(contract.base, settings_only=True), contract.base, parts)


def beside(folder: Path, out: Path) -> str:
    """The path of `folder` relative to `out`, so that both can be moved together."""
    return os.path.relpath(folder.resolve(), out.resolve())
