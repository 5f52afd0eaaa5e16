"""A second teacher on the emoji data, SDXL in small: `python -m distill.emoji.sdxl --work DIR --out FOLDER`.

A UNet predicts ε on SDXL's own noise schedule. Autoencoder and text encoders are those of the bundled teacher.
Resumable: call the same command again after an interruption.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from distill import teacher_pipeline
from distill.emoji import artwork, sample_grid, teacher, text_encoders
from distill.emoji.captions import Captions
from jobs.sampling_contract import SamplingContract
from worker.families import registry
from worker.model_folder.weights_hash import weights_sha256
from worker.sampling.noise_schedule import trailing_grid

STEPS = 30
BATCH = 32
NOISE_SHIFT = 1.0
"""Uniform timesteps, as SDXL was trained."""


def main(
    work: Annotated[Path, typer.Option(help="Where the artwork, checkpoints and sample grids are kept.")],
    out: Annotated[Path, typer.Option(help="The diffusers folder to write.")],
    parts: Annotated[Path, typer.Option(help="The teacher whose autoencoder and text encoders it shares.")] = Path(
        "models/emoji-teacher"
    ),
    steps: int = 4000,
) -> None:
    """Train the UNet, save it as a Stable Diffusion XL pipeline folder with its sampling contract."""
    torch.set_flush_denormal(True)
    pipeline = assemble(teacher_pipeline.load(parts), build())
    side, _ = registry.of(pipeline).native_size(pipeline)
    teacher.make(
        pipeline,
        Captions(artwork.kept(work, side)),
        work / "sdxl-teacher",
        steps,
        out,
        grid=trailing_grid(16),
        compile_blocks=False,
        batch=BATCH,
        noise_shift=NOISE_SHIFT,
    )
    contract(out, side).save(out)


def build() -> UNet2DConditionModel:
    """SDXL's UNet with its three resolutions (16, 8 and 4), 5.6 million weights; its output starts at zero."""
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 4),
        norm_num_groups=16,
        cross_attention_dim=2 * text_encoders.CLIP_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=6 * 32 + text_encoders.PROJECTION,
    )
    nn.init.zeros_(model.conv_out.weight)
    nn.init.zeros_(model.conv_out.bias)
    return model


def assemble(shared: Any, unet: UNet2DConditionModel) -> StableDiffusionXLPipeline:
    """A Stable Diffusion XL pipeline with the autoencoder and the CLIP encoders of `shared`, an SD3 pipeline.

    SDXL reads tokens off both encoders and the pooled embedding off the second, so the first has no projection.
    """
    first = CLIPTextModel(shared.text_encoder.config)
    first.load_state_dict(shared.text_encoder.text_model.state_dict())
    return StableDiffusionXLPipeline(
        vae=shared.vae,
        text_encoder=first.eval().requires_grad_(False),
        text_encoder_2=shared.text_encoder_2,
        tokenizer=shared.tokenizer,
        tokenizer_2=shared.tokenizer_2,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="trailing",
            clip_sample=False,
        ),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def contract(folder: Path, side: int) -> SamplingContract:
    """The teacher's sampling: 30 guided DDIM steps, 60 evaluations, for pictures of `side` pixels a side."""
    return SamplingContract(
        method="epsilon-prediction",
        family="sdxl",
        prediction="epsilon",
        steps=STEPS,
        timesteps=[int(t) for t in trailing_grid(STEPS)[:-1]],
        guidance_scale=sample_grid.GUIDANCE_SCALE,
        sizes=[(side, side)],
        base_sha256=weights_sha256(folder),
    )


if __name__ == "__main__":
    typer.run(main)
