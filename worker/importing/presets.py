"""The published few-step models: what each is made of, and how it is sampled."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.sampling_contract import SamplingContract
from worker.families.base import Size
from worker.importing import grids

Kind = Literal["LoRA file", "network", "all-in-one file", "pipeline"]
"""The kinds of source that can be imported: a LoRA file; the denoiser alone, as a file or a folder; a file with all
networks of a model; a pipeline folder or hub id."""

LORA: tuple[Kind, ...] = ("LoRA file",)
ANY_NETWORK: tuple[Kind, ...] = ("LoRA file", "network", "all-in-one file")
WHOLE: tuple[Kind, ...] = ("pipeline", "network", "all-in-one file")


@dataclass(frozen=True)
class Preset:
    """A published model.

    source: where it is published: a hub id, or a hub id and a file.
    kinds: the forms in which it is published.
    base: the hub id of the pipeline that it is made for; None where it is a pipeline itself, which its single files too
        have the rest from.
    sampling: the fields of the sampling contract.
    size: (height, width) in pixels; None for that of the base.
    licence: as its card named it when this was written.
    needs: settings of the pipeline, by file and name, that must have these values.
    grid: the noise levels of a number of steps at a size, where they depend on the size.
    """

    name: str
    family: str
    source: str
    kinds: tuple[Kind, ...]
    base: str | None
    sampling: dict[str, Any]
    size: Size | None
    licence: str
    needs: dict[tuple[str, str], Any] = field(default_factory=dict)
    grid: Callable[[int, Size], list[float]] | None = None

    @property
    def repository(self) -> str:
        """The hub id in `source`."""
        return "/".join(self.source.split("/")[:2])

    @property
    def file(self) -> str:
        """The file in `source`, by its path in the repository; empty where the whole repository is the model."""
        return "/".join(self.source.split("/")[2:])

    @property
    def steps(self) -> int:
        return self.sampling["steps"]

    def contract(self, sizes: list[Size], **changes: Any) -> SamplingContract:
        """Return the sampling contract for images of `sizes`."""
        fields = {"method": self.name, "family": self.family, "sizes": sizes} | self.sampling | changes
        if self.grid:
            by_size = [self.grid(self.steps, size) for size in sizes]
            fields |= {"sigmas": by_size[0], "size_sigmas": by_size if len(sizes) > 1 else None}
        return SamplingContract.model_validate(fields)


SDXL, SD15 = "stabilityai/stable-diffusion-xl-base-1.0", "stable-diffusion-v1-5/stable-diffusion-v1-5"
MEGAPIXEL, QUARTER = (1024, 1024), (512, 512)
SCHEDULER = "scheduler/scheduler_config.json"
STABILITY, OPEN_RAIL, SEE_CARD = "Stability AI Community License", "CreativeML Open RAIL++-M", "see its card"


def _timesteps(timesteps: list[int], **fields: Any) -> dict[str, Any]:
    return {"prediction": "epsilon", "steps": len(timesteps), "timesteps": timesteps} | fields


def _flow(sigmas: list[float], **fields: Any) -> dict[str, Any]:
    return {"prediction": "flow", "steps": len(sigmas) - 1, "sigmas": sigmas} | fields


def _turbos() -> Iterator[Preset]:
    source = "stabilityai/sdxl-turbo"
    needs = {(SCHEDULER, "timestep_spacing"): "trailing"}  # that of the base models is leading, or not named
    for steps in (1, 2, 3, 4):
        sampling = _timesteps(grids.trailing(steps), sampler="ancestral", start="level")
        yield Preset(f"sdxl-turbo-{steps}step", "sdxl", source, WHOLE, None, sampling, QUARTER, STABILITY, needs)
    for steps in (1, 4):
        sampling = _timesteps(grids.trailing(steps), start="level")
        yield Preset(
            f"sd-turbo-{steps}step", "sd", "stabilityai/sd-turbo", WHOLE, None, sampling, QUARTER, STABILITY, needs
        )


def _lightning() -> Iterator[Preset]:
    for steps in (2, 4, 8):
        source = f"ByteDance/SDXL-Lightning/sdxl_lightning_{steps}step_lora.safetensors"
        sampling = _timesteps(grids.trailing(steps), start="level")
        name = f"sdxl-lightning-{steps}step"
        yield Preset(name, "sdxl", source, ANY_NETWORK, SDXL, sampling, MEGAPIXEL, OPEN_RAIL)
    source = "ByteDance/SDXL-Lightning/sdxl_lightning_1step_unet_x0.safetensors"
    sampling = _timesteps([999], start="level", prediction="sample")
    kinds: tuple[Kind, ...] = ("network", "all-in-one file")
    yield Preset("sdxl-lightning-1step", "sdxl", source, kinds, SDXL, sampling, MEGAPIXEL, OPEN_RAIL)


def _hyper() -> Iterator[Preset]:
    licence = SEE_CARD
    for family, name, base, size in (("sdxl", "SDXL", SDXL, MEGAPIXEL), ("sd", "SD15", SD15, QUARTER)):
        lower = f"hyper-{name.lower()}"
        for steps, cfg in ((2, ""), (4, ""), (8, ""), (8, "-CFG"), (12, "-CFG")):
            source = f"ByteDance/Hyper-SD/Hyper-{name}-{steps}steps{cfg}-lora.safetensors"
            guidance = {"guidance_scale": 5.0} if cfg else {}
            sampling = _timesteps(grids.trailing(steps), end="first", step_ends=grids.ddim_ends(steps), **guidance)
            yield Preset(f"{lower}-{steps}steps{cfg.lower()}", family, source, LORA, base, sampling, size, licence)
        for steps in range(1, 9):
            source = f"ByteDance/Hyper-SD/Hyper-{name}-1step-lora.safetensors"
            sampling = _timesteps(grids.consistency(steps), sampler="tcd", gamma=1.0)
            yield Preset(f"{lower}-unified-{steps}steps", family, source, LORA, base, sampling, size, licence)
    source = "ByteDance/Hyper-SD/Hyper-SDXL-1step-Unet.safetensors"
    sampling = _timesteps([800], sampler="re-noise")
    yield Preset("hyper-sdxl-1step-unet", "sdxl", source, ("network",), SDXL, sampling, MEGAPIXEL, licence)
    for steps, scale in ((4, 3.0), (8, 5.0), (16, 7.0)):
        source = f"ByteDance/Hyper-SD/Hyper-SD3-{steps}steps-CFG-lora.safetensors"
        sampling = _flow(grids.stable_diffusion_3(steps), guidance_scale=scale, lora_scale=0.125)
        base = "stabilityai/stable-diffusion-3-medium-diffusers"
        yield Preset(f"hyper-sd3-{steps}steps", "sd3", source, LORA, base, sampling, MEGAPIXEL, STABILITY)


def _flux_dev() -> Iterator[Preset]:
    """FLUX.1 [dev] with the LoRA files that cut its steps; it is told its guidance scale as without them."""
    needs = {("transformer/config.json", "guidance_embeds"): True}
    licence = "FLUX.1 [dev] Non-Commercial License"
    for name, steps, source, scale in (
        ("hyper-flux-8steps", 8, "ByteDance/Hyper-SD/Hyper-FLUX.1-dev-8steps-lora.safetensors", 0.125),
        ("hyper-flux-16steps", 16, "ByteDance/Hyper-SD/Hyper-FLUX.1-dev-16steps-lora.safetensors", 0.125),
        ("flux-turbo-alpha-8steps", 8, "alimama-creative/FLUX.1-Turbo-Alpha/diffusion_pytorch_model.safetensors", 1.0),
    ):
        levels = grids.flux_dev(steps, MEGAPIXEL)
        sampling = _flow(levels, told_guidance=3.5, lora_scale=scale, max_sequence_length=512)
        base = "black-forest-labs/FLUX.1-dev"
        yield Preset(name, "flux", source, LORA, base, sampling, MEGAPIXEL, licence, needs, grids.flux_dev)


def _distribution_matching() -> Iterator[Preset]:
    licence = "CC BY-NC 4.0 (not for commercial use)"
    published: tuple[tuple[int, list[int], tuple[Kind, ...], str], ...] = (
        (4, [999, 749, 499, 249], ("LoRA file", "network"), "dmd2_sdxl_4step_lora_fp16.safetensors"),
        (1, [399], ("network",), "dmd2_sdxl_1step_unet_fp16.bin"),
    )
    for steps, timesteps, kinds, file in published:
        sampling = _timesteps(timesteps, sampler="re-noise")
        source = f"tianweiy/DMD2/{file}"
        yield Preset(f"dmd2-sdxl-{steps}step", "sdxl", source, kinds, SDXL, sampling, MEGAPIXEL, licence)
    source = "TianheWu/dpdmd/DPDMD-SD35M-4NFE-natural.pt"
    sampling = _flow(grids.stable_diffusion_3(4), method="dp-dmd", anchor_k=5, **{"lambda": 0.05})
    base = "stabilityai/stable-diffusion-3.5-medium"
    yield Preset("dpdmd-sd35m-4step", "sd3", source, ("network",), base, sampling, None, STABILITY)


def _consistency() -> Iterator[Preset]:
    for name, family, base, size in (
        ("lcm-lora-sdxl", "sdxl", SDXL, MEGAPIXEL),
        ("lcm-lora-sdv1-5", "sd", SD15, QUARTER),
        ("lcm-lora-ssd-1b", "sdxl", "segmind/SSD-1B", MEGAPIXEL),
    ):
        source = f"latent-consistency/{name}/pytorch_lora_weights.safetensors"
        for steps in range(2, 9):
            sampling = _timesteps(grids.consistency(steps), sampler="re-noise")
            yield Preset(f"{name}-{steps}steps", family, source, LORA, base, sampling, size, OPEN_RAIL)
    told = _timesteps(grids.consistency(4), sampler="re-noise")
    yield Preset(
        "lcm-sdxl-4steps", "sdxl", "latent-consistency/lcm-sdxl", ("network",), SDXL,
        told | {"told_guidance": 8.0}, MEGAPIXEL, OPEN_RAIL,
    )  # fmt: skip
    yield Preset(
        "lcm-dreamshaper-4steps", "sd", "SimianLuo/LCM_Dreamshaper_v7", ("pipeline",), None,
        told | {"told_guidance": 8.5}, (768, 768), "MIT",
    )  # fmt: skip


def _flows() -> Iterator[Preset]:
    pipeline: tuple[Kind, ...] = ("pipeline",)
    yield Preset(
        "sd35-large-turbo-4steps", "sd3", "stabilityai/stable-diffusion-3.5-large-turbo", WHOLE, None,
        _flow(grids.stable_diffusion_3(4)), MEGAPIXEL, STABILITY,
    )  # fmt: skip
    yield Preset(
        "flux-schnell-4step", "flux", "black-forest-labs/FLUX.1-schnell", WHOLE, None,
        _flow(grids.shifted(4, 1.0), max_sequence_length=256), MEGAPIXEL, "Apache 2.0",
        {("transformer/config.json", "guidance_embeds"): False},
    )  # fmt: skip
    yield Preset(
        "flux2-klein-4b-4step", "flux2-klein", "black-forest-labs/FLUX.2-klein-4B", pipeline, None,
        _flow(grids.klein(4, MEGAPIXEL), max_sequence_length=512), MEGAPIXEL, "Apache 2.0",
        {("model_index.json", "is_distilled"): True}, grids.klein,
    )  # fmt: skip
    yield Preset(
        "z-image-turbo-8step", "z-image", "Tongyi-MAI/Z-Image-Turbo", WHOLE, None,
        _flow(grids.shifted(8, 3.0), max_sequence_length=512), MEGAPIXEL, "Apache 2.0",
        {(SCHEDULER, "shift"): 3.0},
    )  # fmt: skip
    for steps, file in ((4, "4steps-V2.0"), (8, "8steps-V2.0")):
        source = f"lightx2v/Qwen-Image-Lightning/Qwen-Image-Lightning-{file}.safetensors"
        sampling = _flow(grids.shifted(steps, 3.0), max_sequence_length=512)
        name = f"qwen-image-lightning-{steps}step"
        yield Preset(name, "qwen-image", source, LORA, "Qwen/Qwen-Image", sampling, (1328, 1328), "Apache 2.0")
    source = "lightx2v/Qwen-Image-2512-Lightning/Qwen-Image-2512-Lightning-4steps-V1.0-fp32.safetensors"
    sampling = _flow(grids.shifted(4, 3.0), max_sequence_length=512)
    yield Preset(
        "qwen-image-2512-lightning-4step", "qwen-image", source, LORA, "Qwen/Qwen-Image-2512", sampling,
        (1328, 1328), "Apache 2.0",
    )  # fmt: skip
    for steps in (1, 2, 4):
        yield Preset(
            f"sana-sprint-{steps}step", "sana-sprint", "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
            pipeline, None, _flow(grids.sana_sprint(steps), sampler="re-noise", told_guidance=4.5), MEGAPIXEL, SEE_CARD,
            {("transformer/config.json", "guidance_embeds"): True},
        )  # fmt: skip


PRESETS = {
    preset.name: preset
    for group in (_turbos, _lightning, _hyper, _flux_dev, _distribution_matching, _consistency, _flows)
    for preset in group()
}
"""All presets by name."""
