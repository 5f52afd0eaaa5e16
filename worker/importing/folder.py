"""Write a servable folder of a published model: what it changes, and which model has the rest."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from safetensors.torch import load_file, save_file

from jobs.sampling_contract import SamplingContract, Teacher
from worker.families.base import Size, refuse_other_sides
from worker.importing.base import Base, beside
from worker.importing.base import find as find_base
from worker.importing.fitting import (
    check_lora,
    check_tensors,
    converted,
    empty_network,
    empty_pipeline,
    refuse_eight_bits,
)
from worker.importing.presets import PRESETS, SCHEDULER, SEE_CARD, Preset
from worker.importing.source import CONFIG, NETWORK_WEIGHTS, Source, find, setting
from worker.model_folder import hub
from worker.model_folder.lora import with_component
from worker.model_folder.networks import read_networks
from worker.model_folder.pipeline_folder import PipelineIndex, read_index
from worker.model_folder.weights_hash import weights_sha256

STEPS = re.compile(r"(\d+)[-_]?steps?", re.IGNORECASE)
MARKS = {"edit", "2509", "2512", "cfg", "lightning", "hyper", "lcm", "dmd2"}
"""Parts of the names of files that are trained in different ways, or for different models."""
LICENCE = re.compile(r"^(license|license_name):[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Imported:
    """A written folder: its contract, and what is known of the model's licence.

    made_for: where the model that the preset was made for is published, if this is by its name another.
    """

    contract: SamplingContract
    licence: str
    made_for: str | None


def import_model(
    given: str,
    preset_name: str,
    out: Path,
    base: str | None = None,
    lora_scale: float | None = None,
    sizes: Sequence[Size] = (),
) -> Imported:
    """Write the model `given`, which `preset_name` describes, to the folder `out`.

    `given` is a file, a folder, a hub id, or a hub id and a file; `base` a folder or hub id, by default the preset's.
    The folder holds a LoRA file or a denoiser, or nothing, beside a contract that names the model with the rest.
    Raises ValueError, before anything is written, for what contradicts the preset or does not fit the base;
    FolderRefusedError for a base or a size that is not served; OSError when something cannot be read.
    """
    preset = _preset(preset_name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out: {out} exists already")
    if not Path(given).exists() and given.count("/") > 1:
        _refuse_another(Path(given).name, preset)  # before it is fetched
    source = find(given, preset)
    _refuse_contradictions(source, preset, base, lora_scale)
    if source.kind == "pipeline":
        whole = Base(source.hub or beside(source.path, out), source.path, source.hub)
    else:
        whole = find_base(base or preset.base or preset.repository, out)
    index = read_index(whole.folder)
    if index.family.name != preset.family:
        raise ValueError(f"{preset.name} is made for {preset.family}, but {whole.folder} is {index.family.name}")
    _refuse_other_settings(source, whole.folder, preset)
    _refuse_other_told_guidance(source, preset, whole, index)
    pipeline = empty_pipeline(whole, index)
    if source.kind == "LoRA file":
        denoiser = index.family.denoiser
        source = replace(source, tensors=with_component(source.tensors, getattr(pipeline, denoiser), denoiser))
    served = list(sizes) or [preset.size or index.family.native_size(pipeline)]
    refuse_other_sides(index.family, served, pipeline, field="--size")
    replaced = _replaced(source, index)
    kept = {name: path for name, path in whole.parts.items() if name not in replaced}
    changes: dict[str, Any] = {"base": whole.name, "parts": [*replaced, *kept]}
    if lora_scale is not None:
        changes["lora_scale"] = lora_scale
    contract = preset.contract(served, **changes)
    network = _fitted(source, whole, index, pipeline)
    sha256 = None
    if source.hub is None:  # of a pipeline on the hub no weights are here
        folder = hub.fetch(whole.hub) if whole.hub else whole.folder
        read_networks(folder, index, None, skip={*replaced, *kept}, shapes_only=True)
        for part in kept.values():
            read_networks(part.parent, index, None, skip=index.components.keys() - {part.name}, shapes_only=True)
        sha256 = weights_sha256(folder)
    teacher = Teacher(id=base or preset.base, sha256=sha256) if preset.base else None
    contract = contract.model_copy(update={"base_sha256": sha256, "teacher": teacher})
    out.mkdir(parents=True, exist_ok=True)
    _write(source, network, whole, index, out)
    for name, path in kept.items():
        shutil.copytree(path, out / name)
    contract.save(out)
    other = _is_other(given, source, preset)
    licence = _licence(source.path / "README.md", SEE_CARD if other else preset.licence)
    return Imported(contract, licence, preset.source if other else None)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"--preset: {name} is none of those that `fourstep models list` prints")
    return PRESETS[name]


def _refuse_contradictions(source: Source, preset: Preset, base: str | None, lora_scale: float | None) -> None:
    if source.kind not in preset.kinds:
        raise ValueError(
            f"{preset.name} is published as {' or '.join(preset.kinds)}, but {source.name} is: {source.kind}"
        )
    if source.kind != "pipeline":
        _refuse_another(source.name, preset)
    if source.kind == "pipeline" and base is not None:
        raise ValueError(f"--base: {preset.name} is a whole pipeline and takes none")
    if lora_scale is not None and source.kind != "LoRA file":
        raise ValueError(f"--lora-scale: {source.name} is no LoRA file")


def _refuse_another(name: str, preset: Preset) -> None:
    if _names_another(name, preset.source):
        raise ValueError(f"{preset.name} is made for {preset.source}, but the file is named {name}")


def _names_another(name: str, published: str) -> bool:
    """Return whether a file called `name` is by its marks or steps, if any, another than the `published` one."""
    steps, marks = _steps(name), _marks(name)
    own_steps = _steps(published)
    return bool(steps and own_steps and steps != own_steps) or bool(marks and marks != _marks(published))


def _steps(name: str) -> set[int]:
    return {int(steps) for steps in STEPS.findall(name)}


def _marks(name: str) -> set[str]:
    return MARKS.intersection(re.split(r"[^a-z0-9]+", name.lower()))


def _refuse_other_settings(source: Source, folder: Path, preset: Preset) -> None:
    """The scheduler tells a pipeline from others; of the base of a file it is not looked at."""
    for (file, name), value in preset.needs.items():
        if file == SCHEDULER and source.kind != "pipeline":
            continue
        found = setting(folder, file, name)
        if found != value:
            raise ValueError(f"{preset.name} has {name} {value} in {file}, but in {folder} it is {found}")


def _refuse_other_told_guidance(source: Source, preset: Preset, base: Base, index: PipelineIndex) -> None:
    """A UNet says by its configuration whether it is told its guidance scale, a file of FLUX.1 by the names of weights;
    the settings of others are `needs`."""
    configured = _configured(source, base, index)
    if any("guidance_in." in name for name in source.tensors) and not setting(configured, CONFIG, "guidance_embeds"):
        raise ValueError(f"{preset.name} is not told its guidance scale, unlike {source.name}")
    told = setting(configured, CONFIG, "time_cond_proj_dim") is not None
    if told != ("told_guidance" in preset.sampling) and index.family.denoiser == "unet":
        raise ValueError(f"{preset.name} is {'not ' if told else ''}told its guidance scale, unlike {configured}")


def _is_other(given: str, source: Source, preset: Preset) -> bool:
    """Return whether `given` is by its name another model than the preset's: another repository or name of a folder.

    A file that lies here may have any name, and is compared with the base.
    """
    if not Path(given).exists():
        return "/".join(given.split("/")[:2]).lower() != preset.repository.lower()
    return source.kind == "pipeline" and source.path.resolve().name.lower() != Path(preset.repository).name.lower()


def _licence(card: Path, known: str) -> str:
    """Say which licence the model's card names, or named when the presets were written, as `known` says."""
    # The first of each name: a card begins with them, and anything may follow.
    named = dict(reversed(LICENCE.findall(card.read_text(errors="replace")))) if card.is_file() else {}
    if named:
        licence = named.get("license", "other")
        return f"licence by its card: {named.get('license_name', licence) if licence == 'other' else licence}"
    return f"licence: {known}" if known == SEE_CARD else f"licence, as its card named it when this was written: {known}"


def _replaced(source: Source, index: PipelineIndex) -> list[str]:
    if source.kind == "pipeline":
        return []
    return [LORA_WEIGHT_NAME_SAFE if source.kind == "LoRA file" else index.family.denoiser]


def _fitted(source: Source, base: Base, index: PipelineIndex, pipeline: Any) -> Any:
    """Return the denoiser to write, if there is one, after comparing `source` with the `pipeline` of `base`.

    It is without memory for weights that are written as they are.
    """
    if source.kind == "pipeline":
        return None
    if source.kind == "LoRA file":
        check_lora(source.name, source.tensors, pipeline, base, index)
        return None
    refuse_eight_bits(source.name, source.tensors)
    name = index.family.denoiser
    kind = index.components[name][1]
    if source.kind == "all-in-one file":
        return converted(source.name, source.tensors, kind, base.configured(name))
    network = empty_network(_configured(source, base, index), kind)
    try:
        check_tensors(source.tensors, network)
    except ValueError as error:
        if source.folder:
            raise
        try:
            return converted(source.name, source.tensors, kind, base.configured(name))
        except ValueError:
            raise error from None
    return network


def _configured(source: Source, base: Base, index: PipelineIndex) -> Path:
    """The folder with the denoiser's configuration: the source's own, or that of the base."""
    own = source.folder if source.kind == "network" else None
    return own or base.configured(index.family.denoiser)


def _write(source: Source, network: Any, base: Base, index: PipelineIndex, out: Path) -> None:
    if source.kind == "LoRA file":
        if source.path.suffix == ".safetensors" and source.tensors.keys() == load_file(source.path).keys():
            shutil.copyfile(source.path, out / LORA_WEIGHT_NAME_SAFE)
        else:
            save_file(source.tensors, out / LORA_WEIGHT_NAME_SAFE)
    elif network is not None and network.device.type != "meta":
        network.save_pretrained(out / index.family.denoiser)
    elif source.kind == "network":
        part = out / index.family.denoiser
        part.mkdir()
        shutil.copyfile(_configured(source, base, index) / CONFIG, part / CONFIG)
        tensors = {name: tensor.contiguous() for name, tensor in source.tensors.items()}
        save_file(tensors, part / NETWORK_WEIGHTS, metadata={"format": "pt"})
