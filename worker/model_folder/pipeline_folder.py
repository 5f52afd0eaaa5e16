"""The files of a pipeline folder, or of a hub repository, that are its model: those of loaded components."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from worker.errors import FolderRefusedError
from worker.families import registry
from worker.families.base import Family
from worker.model_folder.json_files import read_object

INDEX = "model_index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack")
"""Endings of weights that are not safetensors."""
OTHER_WEIGHTS = (*PICKLES, ".onnx", ".onnx_data", ".gguf", ".h5", ".xml")
PLAIN = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors")
HALF = re.compile(r"(diffusion_pytorch_model|model)\.fp16(-\d+-of-\d+)?\.safetensors")
"""Names of weights in the type that they were trained in, and of those that were rounded to float16."""
SHARDS = re.compile(r".+\.safetensors\.index(\.fp16)?\.json")
"""Names of the indexes of weights in several files."""


@dataclass(frozen=True)
class PipelineIndex:
    """The content of `model_index.json`: the pipeline's `family`, and the class of each of the `components` to load."""

    family: Family
    components: dict[str, tuple[str, str]]

    def weights(self, names: Iterable[str]) -> list[str]:
        """Return those of `names`, paths relative to the folder, that hold the components' weights, in order.

        Where a component has them plain and rounded to float16, the plain ones.
        """
        found: list[str] = []
        names = sorted(names)
        for component in self.components:
            here = [name for name in names if PurePosixPath(name).parent.as_posix() == component]
            plain, half = (_matching(here, pattern) for pattern in (PLAIN, HALF))
            found += plain or half
        return sorted(found)

    def needed(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that are the model: weights, configurations, tokenizers and the sampling contract."""
        names = list(names)
        weights = self.weights(names)
        kept = set(weights)
        for name in names:
            top = PurePosixPath(name).parts[0]
            ending = PurePosixPath(name).suffix
            if name in (INDEX, "sampling.json") or (
                top in self.components and ending not in (".safetensors", *OTHER_WEIGHTS) and ".index" not in name
            ):
                kept.add(name)
            if top in self.components and SHARDS.fullmatch(name):
                half = any(HALF.fullmatch(PurePosixPath(each).name) for each in weights if each.startswith(f"{top}/"))
                if (".fp16" in name) == half:
                    kept.add(name)
        return sorted(kept)

    def refuse_pickles(self, names: Iterable[str]) -> None:
        """Raise FolderRefusedError for a component whose weights are only pickled: unpickling runs code."""
        names = list(names)
        weights = self.weights(names)
        for component in self.components:
            here = [PurePosixPath(name) for name in names if PurePosixPath(name).parent.as_posix() == component]
            pickles = sorted(path.name for path in here if path.suffix in PICKLES)
            if pickles and not any(name.startswith(f"{component}/") for name in weights):
                raise FolderRefusedError(
                    f"{component}: only pickled weights ({', '.join(pickles)}), and only safetensors are read;"
                    " save the pipeline again with safe_serialization=True"
                )

    def variant(self, names: Iterable[str]) -> str | None:
        """Return the variant to load by: "fp16" where a component has no other weights."""
        return "fp16" if any(HALF.fullmatch(PurePosixPath(name).name) for name in self.weights(names)) else None


def read_index(folder: Path) -> PipelineIndex:
    """Read the `model_index.json` in `folder`. Raises FolderRefusedError for a pipeline that is not served."""
    path = folder / INDEX
    if not path.is_file():
        raise FolderRefusedError(f"{INDEX}: missing in {folder}, so it is not a diffusers pipeline")
    content, served = read_object(path), registry.pipelines()
    name = content.get("_class_name")
    if not isinstance(name, str) or name not in served:
        raise FolderRefusedError(f"family: this worker serves {', '.join(served)}, not {name}")
    family = served[name]
    components = {
        name: (entry[0], entry[1])
        for name, entry in content.items()
        if _is_class(entry) and name not in family.unused_components
    }
    lacking = {family.denoiser, "vae", *family.text_components} - {*components, *family.optional_components}
    if lacking:
        raise FolderRefusedError(f"{min(lacking)}: {INDEX} in {folder} names none, and {family.name} needs one")
    return PipelineIndex(family, components)


def _is_class(entry: object) -> bool:
    """Return whether an entry names a library and a class in it; those of absent components hold null."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def names_in(folder: Path, components: Sequence[str]) -> list[str]:
    """List the files in the folders of `components`, relative to `folder`."""
    return [
        path.relative_to(folder).as_posix()
        for component in components
        if (folder / component).is_dir()
        for path in (folder / component).iterdir()
        if path.is_file()
    ]


def _matching(names: Iterable[str], pattern: re.Pattern[str]) -> list[str]:
    return [name for name in names if pattern.fullmatch(PurePosixPath(name).name)]
